package message

import (
	"encoding/binary"
	"fmt"
)

// NotifyType is the kind of a notification. Below 16384 they are errors.
type NotifyType uint16

// Errors, RFC 7296, 3.10.1, RFC 4555 and RFC 5996's registry.
const (
	UnsupportedCriticalPayload NotifyType = 1
	InvalidIKESPI              NotifyType = 4
	InvalidMajorVersion        NotifyType = 5
	InvalidSyntax              NotifyType = 7
	InvalidMessageID           NotifyType = 9
	InvalidSPI                 NotifyType = 11
	NoProposalChosen           NotifyType = 14
	InvalidKEPayload           NotifyType = 17
	AuthenticationFailed       NotifyType = 24
	SinglePairRequired         NotifyType = 34
	NoAdditionalSAs            NotifyType = 35
	InternalAddressFailure     NotifyType = 36
	FailedCPRequired           NotifyType = 37
	TSUnacceptable             NotifyType = 38
	InvalidSelectors           NotifyType = 39
	UnacceptableAddresses      NotifyType = 40 // RFC 4555
	UnexpectedNATDetected      NotifyType = 41 // RFC 4555
	TemporaryFailure           NotifyType = 43
	ChildSANotFound            NotifyType = 44
	StateNotFound              NotifyType = 47 // RFC 9370
)

// Status notifications.
const (
	InitialContact            NotifyType = 16384
	SetWindowSize             NotifyType = 16385
	AdditionalTSPossible      NotifyType = 16386
	IPCompSupported           NotifyType = 16387
	NATDetectionSourceIP      NotifyType = 16388
	NATDetectionDestinationIP NotifyType = 16389
	Cookie                    NotifyType = 16390
	UseTransportMode          NotifyType = 16391
	HTTPCertLookupSupported   NotifyType = 16392
	RekeySA                   NotifyType = 16393
	ESPTFCPaddingNotSupported NotifyType = 16394
	NonFirstFragmentsAlso     NotifyType = 16395
	MobikeSupported           NotifyType = 16396 // RFC 4555
	AdditionalIPv4Address     NotifyType = 16397 // RFC 4555
	AdditionalIPv6Address     NotifyType = 16398 // RFC 4555
	NoAdditionalAddresses     NotifyType = 16399 // RFC 4555
	UpdateSAAddresses         NotifyType = 16400 // RFC 4555
	Cookie2                   NotifyType = 16401 // RFC 4555
	NoNATsAllowed             NotifyType = 16402 // RFC 4555
	AuthLifetime              NotifyType = 16403 // RFC 4478
	MultipleAuthSupported     NotifyType = 16404 // RFC 4739
	AnotherAuthFollows        NotifyType = 16405 // RFC 4739
	RedirectSupported         NotifyType = 16406 // RFC 5685
	EAPOnlyAuthentication     NotifyType = 16417 // RFC 5998
	ChildlessIKEv2Supported   NotifyType = 16418 // RFC 6023
	FragmentationSupported    NotifyType = 16430 // RFC 7383
	SignatureHashAlgorithms   NotifyType = 16431 // RFC 7427
	IntermediateExchangeSupp  NotifyType = 16438 // RFC 9242, INTERMEDIATE_EXCHANGE_SUPPORTED
	AdditionalKeyExchange     NotifyType = 16441 // RFC 9370

	// PathProbe makes a message as long as it is to be. It is of those for private use, which peers that do not know them pass over
	// (RFC 7296, 3.10.1).
	PathProbe NotifyType = 53505
)

var notifyNames = map[NotifyType]string{
	UnsupportedCriticalPayload: "UNSUPPORTED_CRITICAL_PAYLOAD", InvalidIKESPI: "INVALID_IKE_SPI",
	InvalidMajorVersion: "INVALID_MAJOR_VERSION", InvalidSyntax: "INVALID_SYNTAX", InvalidMessageID: "INVALID_MESSAGE_ID",
	InvalidSPI: "INVALID_SPI", NoProposalChosen: "NO_PROPOSAL_CHOSEN", InvalidKEPayload: "INVALID_KE_PAYLOAD",
	AuthenticationFailed: "AUTHENTICATION_FAILED", SinglePairRequired: "SINGLE_PAIR_REQUIRED",
	NoAdditionalSAs: "NO_ADDITIONAL_SAS", InternalAddressFailure: "INTERNAL_ADDRESS_FAILURE",
	FailedCPRequired: "FAILED_CP_REQUIRED", TSUnacceptable: "TS_UNACCEPTABLE", InvalidSelectors: "INVALID_SELECTORS",
	UnacceptableAddresses: "UNACCEPTABLE_ADDRESSES", UnexpectedNATDetected: "UNEXPECTED_NAT_DETECTED",
	TemporaryFailure: "TEMPORARY_FAILURE", ChildSANotFound: "CHILD_SA_NOT_FOUND", StateNotFound: "STATE_NOT_FOUND",
	InitialContact: "INITIAL_CONTACT", SetWindowSize: "SET_WINDOW_SIZE", AdditionalTSPossible: "ADDITIONAL_TS_POSSIBLE",
	IPCompSupported: "IPCOMP_SUPPORTED", NATDetectionSourceIP: "NAT_DETECTION_SOURCE_IP",
	NATDetectionDestinationIP: "NAT_DETECTION_DESTINATION_IP", Cookie: "COOKIE", UseTransportMode: "USE_TRANSPORT_MODE",
	HTTPCertLookupSupported: "HTTP_CERT_LOOKUP_SUPPORTED", RekeySA: "REKEY_SA",
	ESPTFCPaddingNotSupported: "ESP_TFC_PADDING_NOT_SUPPORTED", NonFirstFragmentsAlso: "NON_FIRST_FRAGMENTS_ALSO",
	MobikeSupported: "MOBIKE_SUPPORTED", AdditionalIPv4Address: "ADDITIONAL_IP4_ADDRESS",
	AdditionalIPv6Address: "ADDITIONAL_IP6_ADDRESS", NoAdditionalAddresses: "NO_ADDITIONAL_ADDRESSES",
	UpdateSAAddresses: "UPDATE_SA_ADDRESSES", Cookie2: "COOKIE2", NoNATsAllowed: "NO_NATS_ALLOWED",
	AuthLifetime: "AUTH_LIFETIME", MultipleAuthSupported: "MULTIPLE_AUTH_SUPPORTED",
	AnotherAuthFollows: "ANOTHER_AUTH_FOLLOWS", RedirectSupported: "REDIRECT_SUPPORTED",
	EAPOnlyAuthentication: "EAP_ONLY_AUTHENTICATION", ChildlessIKEv2Supported: "CHILDLESS_IKEV2_SUPPORTED",
	FragmentationSupported: "IKEV2_FRAGMENTATION_SUPPORTED", SignatureHashAlgorithms: "SIGNATURE_HASH_ALGORITHMS",
	IntermediateExchangeSupp: "INTERMEDIATE_EXCHANGE_SUPPORTED", PathProbe: "PATH_PROBE", AdditionalKeyExchange: "ADDITIONAL_KEY_EXCHANGE",
}

// String returns IANA's name.
func (n NotifyType) String() string {
	if name, ok := notifyNames[n]; ok {
		return name
	}
	return fmt.Sprintf("notify %d", uint16(n))
}

// IsError says whether the notification reports an error, RFC 7296, 3.10.1.
func (n NotifyType) IsError() bool { return n < 16384 }

// Notify is a notification. Protocol and SPI name the association that it is about; both are empty where it is about
// the message or the IKE SA.
type Notify struct {
	Protocol ProtocolID
	SPI      []byte
	Notify   NotifyType
	Data     []byte
}

func (p *Notify) Type() PayloadType { return TypeNotify }

func (p *Notify) AppendBody(b []byte) []byte {
	b = append(b, byte(p.Protocol), byte(len(p.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(p.Notify))
	b = append(b, p.SPI...)
	return append(b, p.Data...)
}

func parseNotify(b []byte) (*Notify, error) {
	if len(b) < 4 || len(b) < 4+int(b[1]) {
		return nil, syntaxError("N of %d bytes", len(b))
	}
	spiEnd := 4 + int(b[1])
	return &Notify{
		Protocol: ProtocolID(b[0]),
		SPI:      b[4:spiEnd:spiEnd],
		Notify:   NotifyType(binary.BigEndian.Uint16(b[2:])),
		Data:     b[spiEnd:],
	}, nil
}
