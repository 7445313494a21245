package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// Forms of a command's result.
const (
	formTable = "table" // for people
	formJSON  = "json"
	formYAML  = "yaml"
)

// output is the form in which a command prints its result, and where.
type output struct {
	w    io.Writer
	form string
	set  string // the flag that chose the form, "" for none
}

// outputFlags adds --output and --json to cmd. A wrong value is a wrong command line.
func (a *app) outputFlags(cmd *cobra.Command) *output { return a.outputFlagsUnder(cmd, "o") }

// outputFlagsUnder is outputFlags for commands whose -o means something else: "" gives --output no
// short form.
func (a *app) outputFlagsUnder(cmd *cobra.Command, short string) *output {
	o := &output{w: a.stdout, form: formTable}
	f := cmd.Flags()
	f.VarP((*formFlag)(o), "output", short, "form of the result: table, json or yaml")
	json := f.VarPF((*jsonFlag)(o), "json", "", "the same as --output json")
	json.NoOptDefVal = "true"
	return o
}

// table says that the result is for a person to read.
func (o *output) table() bool { return o.form == formTable }

// emit prints a command's whole result on stdout: as table writes it for a person, else value, by
// the names of its JSON tags.
func (o *output) emit(value any, table func(io.Writer) error) error {
	switch o.form {
	case formJSON:
		return printJSON(o.w, value)
	case formYAML:
		return printYAML(o.w, value)
	}
	return table(o.w)
}

// choose makes form the result's. Two flags that contradict each other are refused.
func (o *output) choose(flag, form string) error {
	if o.set != "" && o.set != flag && o.form != form {
		return errors.New("--json and --output contradict each other")
	}
	o.form, o.set = form, flag
	return nil
}

// formFlag is the value of --output.
type formFlag output

func (v *formFlag) String() string { return v.form }
func (*formFlag) Type() string     { return "string" }

func (v *formFlag) Set(s string) error {
	switch s {
	case formTable, formJSON, formYAML:
		return (*output)(v).choose("output", s)
	}
	return errors.New("use table, json or yaml")
}

// jsonFlag is the value of --json.
type jsonFlag output

func (v *jsonFlag) String() string { return strconv.FormatBool(v.form == formJSON && v.set == "json") }
func (*jsonFlag) Type() string     { return "bool" }

func (v *jsonFlag) Set(s string) error {
	on, err := strconv.ParseBool(s)
	if err != nil || !on {
		return err
	}
	return (*output)(v).choose("json", formJSON)
}

// printJSON writes v indented, with its own line end. What would steer a terminal is escaped.
func printJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var text strings.Builder
	for _, r := range b.String() {
		if !steers(r) {
			text.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) { // it can only be inside a string
			fmt.Fprintf(&text, `\u%04x`, unit)
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// printYAML writes v as YAML with the names, the order and the values that it has as JSON.
func printYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber() // a size must not pass through a float
	node, err := yamlNode(dec)
	if err != nil {
		return err
	}
	// One write, so that nothing half is printed.
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return err
	}
	if err := enc.Close(); err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}

// yamlNode reads the next JSON value. (A YAML parser would not do: it refuses characters that JSON
// may hold as they are.)
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		node := &yaml.Node{Kind: yaml.MappingNode}
		if t == '[' {
			node.Kind = yaml.SequenceNode
		}
		for dec.More() { // in an object, names and values take turns
			child, err := yamlNode(dec)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		_, err := dec.Token() // the end
		return node, err
	case json.Number:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: t.String()}, nil
	}
	node := new(yaml.Node)
	return node, node.Encode(token) // a string, quoted where it looks like something else; a boolean; null
}

// printTable writes rows under a head, in columns. A cell stays on its line, whatever it holds.
func printTable(w io.Writer, head []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, oneLine(cell))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush() // reports what the writes before met
}

// printFields writes one value a line under its name, and leaves out the empty ones.
func printFields(w io.Writer, fields [][2]string) error {
	var b strings.Builder
	for _, f := range fields {
		if f[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", f[0], oneLine(f[1]))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine is printable without line ends.
func oneLine(s string) string {
	return strings.ReplaceAll(printable(s), "\n", `\n`)
}

// printable escapes what would steer a terminal: names of files and strings from images and servers
// may hold anything. Line ends stay.
func printable(s string) string {
	if !strings.ContainsFunc(s, steers) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) || r == utf8.RuneError {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// steers reports characters that a terminal may do something else with than show them.
func steers(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// bytesWords writes a size as qemu-img does: rounded, then exact.
func bytesWords(n int64) string {
	return fmt.Sprintf("%s (%d bytes)", humanize.IBytes(uint64(n)), n)
}
