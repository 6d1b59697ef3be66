package message

import "encoding/binary"

// ConfigType is what a Configuration payload does, RFC 7296, 3.15.
type ConfigType uint8

const (
	ConfigRequest ConfigType = 1
	ConfigReply   ConfigType = 2
	ConfigSet     ConfigType = 3
	ConfigAck     ConfigType = 4
)

// ConfigAttributeType is the kind of a configuration attribute, RFC 7296, 3.15.1.
type ConfigAttributeType uint16

const (
	InternalIPv4Address ConfigAttributeType = 1
	InternalIPv4Netmask ConfigAttributeType = 2
	InternalIPv4DNS     ConfigAttributeType = 3
	InternalIPv4NBNS    ConfigAttributeType = 4
	InternalIPv4DHCP    ConfigAttributeType = 6
	ApplicationVersion  ConfigAttributeType = 7
	InternalIPv6Address ConfigAttributeType = 8 // 16 bytes and a prefix length
	InternalIPv6DNS     ConfigAttributeType = 10
	InternalIPv6DHCP    ConfigAttributeType = 12
	InternalIPv4Subnet  ConfigAttributeType = 13
	SupportedAttributes ConfigAttributeType = 14
	InternalIPv6Subnet  ConfigAttributeType = 15
	InternalDNSDomain   ConfigAttributeType = 25 // RFC 8598
)

// ConfigAttribute is one attribute; an empty value asks for one.
type ConfigAttribute struct {
	Type  ConfigAttributeType
	Value []byte
}

// Config is a Configuration payload.
type Config struct {
	Config     ConfigType
	Attributes []ConfigAttribute
}

func (p *Config) Type() PayloadType { return TypeConfig }

func (p *Config) AppendBody(b []byte) []byte {
	b = append(b, byte(p.Config), 0, 0, 0)
	for _, a := range p.Attributes {
		b = binary.BigEndian.AppendUint16(b, uint16(a.Type)&0x7fff)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		b = append(b, a.Value...)
	}
	return b
}

func parseConfig(b []byte) (*Config, error) {
	if len(b) < 4 {
		return nil, syntaxError("CP of %d bytes", len(b))
	}
	p := &Config{Config: ConfigType(b[0])}
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, syntaxError("CP attribute of %d bytes", len(b))
		}
		if len(p.Attributes) == ConfigMax {
			return nil, tooMany("more than %d CP attributes", ConfigMax)
		}
		kind, length := ConfigAttributeType(binary.BigEndian.Uint16(b)&0x7fff), int(binary.BigEndian.Uint16(b[2:]))
		b = b[4:]
		if length > len(b) {
			return nil, syntaxError("CP attribute of %d bytes in %d bytes", length, len(b))
		}
		if !configLengthValid(kind, length) {
			return nil, syntaxError("CP attribute %d of %d bytes", kind, length)
		}
		p.Attributes = append(p.Attributes, ConfigAttribute{Type: kind, Value: b[:length:length]})
		b = b[length:]
	}
	return p, nil
}

// configLengthValid holds the table of RFC 7296, 3.15.1.
func configLengthValid(kind ConfigAttributeType, length int) bool {
	switch kind {
	case InternalIPv4Address, InternalIPv4Netmask, InternalIPv4DNS, InternalIPv4NBNS, InternalIPv4DHCP:
		return length == 0 || length == 4
	case InternalIPv6Address:
		return length == 0 || length == 17
	case InternalIPv6DNS, InternalIPv6DHCP:
		return length == 0 || length == 16
	case InternalIPv4Subnet:
		return length == 0 || length == 8
	case InternalIPv6Subnet:
		return length == 0 || length == 17
	case SupportedAttributes:
		return length%2 == 0
	}
	return true
}
