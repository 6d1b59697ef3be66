package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
)

// reference turns the gateway's configuration into a swanctl.conf that means the same, so that
// strongSwan can play its part against itself: a scenario that fails even then is wrong itself.
// That works because the gateway's keys are swanctl's. Keys of the gateway alone are left out.
func reference(text []byte) (string, error) {
	var file struct {
		Connections yaml.MapSlice `yaml:"connections"`
		Secrets     yaml.MapSlice `yaml:"secrets"`
		Pools       yaml.MapSlice `yaml:"pools"`
		Authorities yaml.MapSlice `yaml:"authorities"`
		IKE         any           `yaml:"ike"`
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.UseOrderedMap()); err != nil {
		return "", fmt.Errorf("sallyport.yaml as a reference: %w", err)
	}
	var b strings.Builder
	for _, x := range []struct {
		name string
		body yaml.MapSlice
	}{{"connections", file.Connections}, {"pools", file.Pools}, {"authorities", file.Authorities}} {
		if x.body != nil {
			section(&b, 0, x.name, x.body)
		}
	}
	// A list of identities is id-1, id-2 and so on in a secret; private keys are found by themselves.
	b.WriteString("secrets {\n")
	for _, item := range file.Secrets {
		name := fmt.Sprint(item.Key)
		body, ok := item.Value.(yaml.MapSlice)
		if !ok || strings.HasPrefix(name, "private") {
			continue
		}
		fmt.Fprintf(&b, "\t%s {\n", name)
		for _, field := range body {
			if ids, isList := field.Value.([]any); isList {
				for i, id := range ids {
					fmt.Fprintf(&b, "\t\tid-%d = %v\n", i, id)
				}
				continue
			}
			fmt.Fprintf(&b, "\t\t%v = %v\n", field.Key, field.Value)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// section writes one section with what is in it.
func section(b *strings.Builder, depth int, name string, body yaml.MapSlice) {
	indent := strings.Repeat("\t", depth)
	fmt.Fprintf(b, "%s%s {\n", indent, name)
	for _, item := range body {
		key := fmt.Sprint(item.Key)
		switch value := item.Value.(type) {
		case yaml.MapSlice:
			section(b, depth+1, key, value)
		case []any:
			if key == "certs" {
				value = value[:1] // those after the first are its chain, which strongSwan puts together itself
			}
			words := make([]string, len(value))
			for i, v := range value {
				words[i] = file(key, fmt.Sprint(v))
			}
			fmt.Fprintf(b, "%s\t%s = %s\n", indent, key, strings.Join(words, ", "))
		case bool:
			fmt.Fprintf(b, "%s\t%s = %s\n", indent, key, map[bool]string{true: "yes", false: "no"}[value])
		default:
			fmt.Fprintf(b, "%s\t%s = %s\n", indent, key, file(key, fmt.Sprint(value)))
		}
	}
	fmt.Fprintf(b, "%s}\n", indent)
}

// file turns the path of a certificate into what swanctl looks for in its own folders.
func file(key, value string) string {
	if key == "certs" || key == "cacerts" || key == "cacert" {
		return filepath.Base(value)
	}
	return value
}
