package ims

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// MatchOS finds the operating systems that loose text may mean, such as "ubuntu 22.04 x64" or "rhel7.6":
// every word of it must be in the name, in any order, and a version may leave out its last parts. The best
// come first. sure says that the first one is the only best one: the text says it literally, or no other
// fits as well.
func MatchOS(list []OSVersion, text string) (found []OSVersion, sure bool) {
	want := osWords(text)
	if len(want) == 0 {
		return nil, false
	}
	type match struct {
		OSVersion
		score osScore
	}
	var matches []match
	for _, v := range list {
		if strings.EqualFold(v.Name, strings.TrimSpace(text)) {
			return []OSVersion{v}, true
		}
		if score, ok := scoreOS(want, osWords(v.Name)); ok {
			matches = append(matches, match{v, score})
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return a.score.compare(b.score) })
	for _, m := range matches {
		found = append(found, m.OSVersion)
	}
	sure = len(matches) == 1 || len(matches) > 1 && matches[0].score != matches[1].score && matches[0].score.cut == 0
	return found, sure
}

// osScore is how far a name is from what was asked for; less is nearer.
type osScore struct {
	cut   int // versions of which only the beginning was asked for
	bits  int // 1: has 32 bits, which nobody asked for
	extra int // words that were not asked for
}

func (s osScore) compare(o osScore) int {
	return cmp.Or(cmp.Compare(s.cut, o.cut), cmp.Compare(s.bits, o.bits), cmp.Compare(s.extra, o.extra))
}

// scoreOS compares words that are asked for with those of a name.
func scoreOS(want, have []string) (score osScore, ok bool) {
	left := slices.Clone(have)
	for _, w := range want {
		i := slices.Index(left, w)
		if i < 0 && w[0] >= '0' && w[0] <= '9' {
			i = slices.IndexFunc(left, func(h string) bool { return strings.HasPrefix(h, w+".") })
			score.cut++
		}
		if i < 0 {
			return score, false
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, w := range left {
		switch w {
		case bits64:
		case bits32:
			score.bits = 1
		default:
			score.extra++
		}
	}
	return score, true
}

// What the many spellings of a processor's width become. No name has such words.
const bits64, bits32 = "#64", "#32"

var (
	osBits = regexp.MustCompile(`(?i)\b(x86[_-]64|x64|amd64|64[ -]?bits?)\b|\b(x86|i[3-6]86|32[ -]?bits?)\b`)
	osWord = regexp.MustCompile(`#\d+|\d+(\.\d+)*|(?:sp|r|u|update) ?\d+\b|[\p{L}]+`)
	// osNames are what people call systems, in the words of the service's names.
	osNames = map[string]string{
		"win": "windows", "rhel": "red hat enterprise", "redhat": "red hat", "sles": "suse enterprise server", "ol": "oracle linux",
		"opensuseleap": "opensuse", "leap": "",
	}
)

// osWords are the words of a name, or of text that means one, in one spelling.
func osWords(text string) []string {
	text = osBits.ReplaceAllStringFunc(strings.ToLower(text), func(s string) string {
		if strings.Contains(s, "64") {
			return " " + bits64 + " "
		}
		return " " + bits32 + " "
	})
	var words []string
	for _, w := range osWord.FindAllString(text, -1) {
		w = strings.ReplaceAll(w, " ", "")
		if meant, ok := osNames[w]; ok {
			words = append(words, strings.Fields(meant)...)
			continue
		}
		words = append(words, w)
	}
	return words
}
