package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// printJSON writes v indented, with its own line end.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printable escapes what would steer a terminal: names of files and strings from images and servers
// may hold anything. Line ends stay.
func printable(s string) string {
	steers := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
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

// bytesWords writes a size as qemu-img does: rounded, then exact.
func bytesWords(n int64) string {
	return fmt.Sprintf("%s (%d bytes)", humanize.IBytes(uint64(n)), n)
}
