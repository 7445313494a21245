// Package profile keeps what a user tells the program once: named profiles of settings in a YAML file
// that may be edited by hand, and beside it what a login gave (a token and temporary keys, until they
// expire).
//
// The file is
//
//	current: prod            # the profile that is used where none is named
//	profiles:
//	  prod:
//	    region: cn-north-4
//	    bucket: my-images
//
// Both kinds of file are written with mode 0600, whole or not at all; comments and order survive. The
// package checks names and single values. It knows nothing of flags and the environment, of what
// settings mean together, and of networks. Programs that change the file at the same moment take turns (Change).
package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// DefaultName is the profile that is used where neither the file nor the caller names one.
	DefaultName = "default"
	// maxFile bounds the file in bytes: hundreds of profiles with long security tokens.
	maxFile = 4 << 20
	// maxName bounds a profile's name, which becomes part of a file name, in bytes.
	maxName = 64

	keyCurrent  = "current"
	keyProfiles = "profiles"
)

var (
	// ErrNoProfile: the file has no profile of that name.
	ErrNoProfile = errors.New("no such profile")
	// ErrFile: the file is not one of settings. The error says where and why, without any value.
	ErrFile = errors.New("malformed settings file")
)

// File is a settings file in memory. It is not safe for concurrent use.
type File struct {
	path string
	mode fs.FileMode // 0: the file does not exist
	doc  *yaml.Node  // a document that holds a mapping
}

// Path returns where the settings are if nobody says otherwise: $XDG_CONFIG_HOME/imgferry/config.yaml,
// or the same below the system's folder for configuration (os.UserConfigDir).
func Path() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // to be ignored then, says the XDG specification
		var err error
		if dir, err = userConfigDir(); err != nil {
			return "", fmt.Errorf("no folder for the settings: %w", err)
		}
	}
	return filepath.Join(dir, "imgferry", "config.yaml"), nil
}

// userConfigDir is os.UserConfigDir without its refusal of a relative XDG_CONFIG_HOME.
func userConfigDir() (string, error) {
	if os.Getenv("XDG_CONFIG_HOME") == "" {
		return os.UserConfigDir()
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".config"), err
}

// Load reads the file at path. One that does not exist is an empty one (Exists tells). The error matches
// ErrFile if the content is wrong.
func Load(path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, doc: emptyDocument()}
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	} else if err != nil {
		return nil, err
	}
	defer r.Close()
	st, err := r.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: it is no regular file", path, ErrFile)
	}
	f.mode = st.Mode()
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if err := f.parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrFile, err)
	}
	return f, nil
}

func emptyDocument() *yaml.Node {
	return &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{newMapping()}}
}

func newMapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"} }

// parse takes the file's text. Its errors name lines and keys, never values.
func (f *File) parse(text []byte) error {
	if len(text) > maxFile {
		return fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	doc := new(yaml.Node)
	dec := yaml.NewDecoder(bytes.NewReader(text))
	err := dec.Decode(doc)
	if errors.Is(err, io.EOF) {
		return nil // nothing but comments
	}
	if err != nil {
		return errors.New(withoutValues(err))
	}
	if !errors.Is(dec.Decode(new(yaml.Node)), io.EOF) {
		return errors.New("it holds more than one document")
	}
	if len(doc.Content) == 1 && doc.Content[0].Tag == "!!null" {
		return nil
	}
	top, err := mapping(doc.Content[0], "the file")
	if err != nil {
		return err
	}
	for key, value := range top {
		switch key {
		case keyCurrent:
			if value.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: %s is not a name", value.Line, keyCurrent)
			}
			if err := CheckName(value.Value); err != nil && !isNull(value) {
				return fmt.Errorf("line %d: %w", value.Line, err)
			}
		case keyProfiles:
			if err := checkProfiles(value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("line %d: %q is neither %q nor %q", value.Line, key, keyCurrent, keyProfiles)
		}
	}
	f.doc = doc
	return nil
}

func checkProfiles(n *yaml.Node) error {
	if isNull(n) {
		return nil
	}
	profiles, err := mapping(n, keyProfiles)
	if err != nil {
		return err
	}
	for name, settings := range profiles {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("line %d: %w", settings.Line, err)
		}
		if isNull(settings) {
			continue
		}
		values, err := mapping(settings, "profile "+name)
		if err != nil {
			return err
		}
		for key, v := range values {
			if _, known := checks[key]; !known {
				return fmt.Errorf("line %d: %w", v.Line, Check(key, ""))
			}
			if v.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: %s of profile %s is not a plain value", v.Line, key, name)
			}
		}
	}
	return nil
}

// mapping returns the entries of a mapping; what names it in an error.
func mapping(n *yaml.Node, what string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: %s is not a list of KEY: VALUE lines", n.Line, what)
	}
	entries := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key of %s is not a plain word", key.Line, what)
		}
		if entries[key.Value] != nil {
			return nil, fmt.Errorf("line %d: %s has %q twice", key.Line, what, key.Value)
		}
		entries[key.Value] = n.Content[i+1]
	}
	return entries, nil
}

// isNull reports nothing, or the empty text that the YAML encoder makes of it inside braces.
func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && (n.Tag == "!!null" || n.Value == "")
}

// withoutValues is a syntax error's text without what it may quote of the file.
func withoutValues(err error) string {
	if strings.Contains(err.Error(), "unknown anchor") {
		return "a value that begins with '*' must be in quotes"
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), "`")
	return strings.TrimSpace(text)
}

// CheckName refuses what can't name a profile: letters, digits, '-', '_' and '.', up to 64, the first of
// them a letter or digit.
func CheckName(name string) error {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if name == "" || len(name) > maxName || strings.Trim(name, plain+"-_.") != "" || !strings.Contains(plain, name[:1]) {
		return fmt.Errorf("%q can't name a profile: letters, digits, '-', '_' and '.', up to %d, a letter or digit first", name, maxName)
	}
	return nil
}

// Path returns where the file is, as an absolute path.
func (f *File) Path() string { return f.path }

// Exists reports whether there was a file.
func (f *File) Exists() bool { return f.mode != 0 }

// Exposed reports whether others on this machine may read secrets in the file.
func (f *File) Exposed() bool {
	if !readableByOthers(f.mode) {
		return false
	}
	for _, name := range f.Names() {
		for _, key := range Keys() {
			if v := f.Get(name, key); v != "" && IsSecret(key, v) {
				return true
			}
		}
	}
	return false
}

// child returns the value of key in the mapping n, or nil.
func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// grow returns the mapping at key in n, which it makes if there is none.
func grow(n *yaml.Node, key string) *yaml.Node {
	c := child(n, key)
	switch {
	case c == nil:
		name := new(yaml.Node)
		name.SetString(key)
		c = newMapping()
		n.Content = append(n.Content, name, c)
	case c.Kind != yaml.MappingNode: // null
		*c = *newMapping()
	case len(c.Content) == 0:
		c.Style = 0 // "{}" must not make one line of what is to come
	}
	return c
}

// put sets key in the mapping n to a string.
func put(n *yaml.Node, key, value string) {
	c := child(n, key)
	if c == nil {
		name := new(yaml.Node)
		name.SetString(key)
		c = new(yaml.Node)
		n.Content = append(n.Content, name, c)
	}
	c.Style = 0
	c.SetString(value)
}

// drop removes key from the mapping n and reports whether it was there.
func drop(n *yaml.Node, key string) bool {
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return true
		}
	}
	return false
}

func (f *File) top() *yaml.Node { return f.doc.Content[0] }

func (f *File) profiles() *yaml.Node { return child(f.top(), keyProfiles) }

// Names returns the names of the profiles, ascending.
func (f *File) Names() []string {
	var names []string
	if p := f.profiles(); p != nil && p.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(p.Content); i += 2 {
			names = append(names, p.Content[i].Value)
		}
	}
	slices.Sort(names)
	return names
}

// Has reports whether there is a profile of that name.
func (f *File) Has(name string) bool { return child(f.profiles(), name) != nil }

// Current returns the profile that the file selects, DefaultName if it selects none.
func (f *File) Current() string {
	if c := child(f.top(), keyCurrent); c != nil && !isNull(c) {
		return c.Value
	}
	return DefaultName
}

// Get returns a setting of a profile, "" if it is not set. The value is not checked: see Check.
func (f *File) Get(name, key string) string {
	if v := child(child(f.profiles(), name), key); v != nil && !isNull(v) {
		return v.Value
	}
	return ""
}

// Set sets a setting of a profile, which it makes if there is none; the first one becomes the current
// one. A key or value that Check refuses changes nothing.
func (f *File) Set(name, key, value string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := Check(key, value); err != nil {
		return err
	}
	if len(f.Names()) == 0 {
		f.top().Style = 0 // see grow
		put(f.top(), keyCurrent, name)
	}
	put(grow(grow(f.top(), keyProfiles), name), key, value)
	return nil
}

// Unset removes a setting from a profile and reports whether it was set. The error matches ErrNoProfile.
func (f *File) Unset(name, key string) (bool, error) {
	if !f.Has(name) {
		return false, f.noProfile(name)
	}
	return drop(child(f.profiles(), name), key), nil
}

// Use makes a profile the current one. The error matches ErrNoProfile.
func (f *File) Use(name string) error {
	if !f.Has(name) {
		return f.noProfile(name)
	}
	put(f.top(), keyCurrent, name)
	return nil
}

// Delete removes a profile; if it was the current one, none is selected from then on. The error matches
// ErrNoProfile.
func (f *File) Delete(name string) error {
	if !drop(f.profiles(), name) {
		return f.noProfile(name)
	}
	if f.Current() == name {
		drop(f.top(), keyCurrent)
	}
	return nil
}

// Require returns nil if there is a profile of that name, or else an error that matches ErrNoProfile and
// names those there are.
func (f *File) Require(name string) error {
	if f.Has(name) {
		return nil
	}
	return f.noProfile(name)
}

func (f *File) noProfile(name string) error {
	names := "none"
	if all := f.Names(); len(all) > 0 {
		names = strings.Join(all, ", ")
	}
	return fmt.Errorf("%w: %q; %s has %s", ErrNoProfile, name, f.path, names)
}

// Save writes the file, with mode 0600 whatever it had before.
func (f *File) Save() error {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(f.doc); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	if err := writePrivate(f.path, b.Bytes()); err != nil {
		return err
	}
	f.mode = privateMode
	return nil
}
