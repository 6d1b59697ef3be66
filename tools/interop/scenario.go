package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed scenarios
var folders embed.FS

// scenario is one folder below scenarios, as one of its variants.
type scenario struct {
	Name        string // FOLDER or FOLDER/VARIANT
	Description string
	Sallyport   string // connections, secrets, pools ... of sallyport.yaml
	Swanctl     string // the peer's swanctl.conf
	StrongSwan  string // what is added to its strongswan.conf
	Expect      expect
}

// expect is what expect.yaml holds.
type expect struct {
	Smoke       bool              `yaml:"smoke"`       // part of the smoke subset; a variant can say so too
	Reference   *bool             `yaml:"reference"`   // false: needs what strongSwan cannot do here, so that it cannot play the gateway's part
	Readable    bool              `yaml:"readable"`    // the suite does not encrypt
	Topology    string            `yaml:"topology"`    // direct, routed, nat-sallyport or nat-strongswan
	Credentials *credentials      `yaml:"credentials"` // certificates; none if not given
	Initiators  []string          `yaml:"initiators"`  // the steps are done once for each; both if not given
	Vary        []yaml.MapSlice   `yaml:"vary"`        // variants: values for ${KEY} in every file, and their name
	Set         map[string]string `yaml:"set"`         // values for ${KEY} that all variants have, or nearly all
	Steps       []step            `yaml:"steps"`
}

// The ends, as scenarios call them.
const (
	sallyport  = "sallyport"
	strongswan = "strongswan"
	initiator  = "initiator" // whichever it is in this run ...
	responder  = "responder" // ... and the other
	both       = "both"
)

// load reads every scenario.
func load() ([]scenario, error) {
	entries, err := folders.ReadDir("scenarios")
	if err != nil {
		return nil, err
	}
	var all []scenario
	for _, e := range entries {
		variants, err := loadFolder(e.Name())
		if err != nil {
			return nil, fmt.Errorf("scenario %s: %w", e.Name(), err)
		}
		all = append(all, variants...)
	}
	return all, nil
}

// files of a scenario; the last is the only one that may be missing.
var files = []string{"expect.yaml", "description.txt", "sallyport.yaml", "swanctl.conf", "strongswan.conf"}

func loadFolder(name string) ([]scenario, error) {
	texts := map[string]string{}
	for _, f := range files {
		text, err := folders.ReadFile(path.Join("scenarios", name, f))
		if err != nil && (f != "strongswan.conf" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, err
		}
		texts[f] = string(text)
	}
	// Variants and settings are in the file that they are set in.
	var head struct {
		Set  map[string]string `yaml:"set"`
		Vary []yaml.MapSlice   `yaml:"vary"`
	}
	if err := yaml.Unmarshal([]byte(texts["expect.yaml"]), &head); err != nil {
		return nil, err
	}
	if head.Vary == nil {
		head.Vary = []yaml.MapSlice{nil}
	}
	var variants []scenario
	for _, v := range head.Vary {
		s := scenario{Name: name, Description: strings.TrimSpace(texts["description.txt"])}
		values := map[string]string{}
		maps.Copy(values, head.Set)
		smoke := false
		for _, item := range v {
			switch item.Key {
			case "name":
				s.Name += "/" + fmt.Sprint(item.Value)
			case "smoke":
				smoke = item.Value == true
			default:
				values[fmt.Sprint(item.Key)] = fmt.Sprint(item.Value)
			}
		}
		if err := s.fill(texts, values); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		s.Expect.Smoke = s.Expect.Smoke || smoke
		variants = append(variants, s)
	}
	return variants, nil
}

// fill puts the values into the texts and reads what is expected. ${PSK} is left for later.
func (s *scenario) fill(texts, values map[string]string) error {
	once := func(text string) string {
		return os.Expand(text, func(key string) string {
			if value, ok := values[key]; ok {
				return value
			}
			return "${" + key + "}"
		})
	}
	put := func(text string) string { return once(once(text)) } // a value may name another
	s.Sallyport, s.Swanctl, s.StrongSwan = put(texts["sallyport.yaml"]), put(texts["swanctl.conf"]), put(texts["strongswan.conf"])
	d := yaml.NewDecoder(bytes.NewReader([]byte(put(texts["expect.yaml"]))), yaml.Strict())
	if err := d.Decode(&s.Expect); err != nil {
		return fmt.Errorf("expect.yaml: %w", err)
	}
	e := &s.Expect
	if e.Topology == "" {
		e.Topology = direct
	}
	if e.Initiators == nil {
		e.Initiators = []string{sallyport, strongswan}
	}
	switch {
	case s.Description == "":
		return errors.New("description.txt is empty")
	case !slices.Contains([]string{direct, routed, natSallyport, natStrongSwan}, e.Topology):
		return fmt.Errorf("there is no topology %q", e.Topology)
	case len(e.Steps) == 0:
		return errors.New("there are no steps")
	}
	for _, i := range e.Initiators {
		if i != sallyport && i != strongswan {
			return fmt.Errorf("there is no initiator %q", i)
		}
	}
	for _, text := range []string{s.Sallyport, s.Swanctl, s.StrongSwan} {
		if rest := strings.ReplaceAll(text, "${PSK}", ""); strings.Contains(rest, "${") {
			return fmt.Errorf("a value for ${...} is missing: %q", rest[strings.Index(rest, "${"):][:20])
		}
	}
	return nil
}

// matchesAny tells whether a scenario's name or folder is named, or anything at all when nothing is.
func (s *scenario) matchesAny(names []string) bool {
	folder, _, _ := strings.Cut(s.Name, "/")
	return len(names) == 0 || slices.Contains(names, s.Name) || slices.Contains(names, folder)
}
