package objectstore

import (
	"slices"
	"sort"
	"strings"
)

// listQuery selects a page of a listing.
type listQuery struct {
	prefix, delimiter string
	after             string // a key or a common prefix; what is listed comes behind it
	max               int
}

// listPage is a page. Common prefixes count as entries.
type listPage struct {
	objects   []*object
	prefixes  []string
	last      string // the last entry: where the next page begins
	truncated bool
}

// full reports whether a page of at most limit entries takes no more.
func (p *listPage) full(limit int) bool { return len(p.objects)+len(p.prefixes) >= limit }

// list returns a page of a bucket's objects, in the order of their keys' bytes.
func (s *Store) list(bucket string, l listQuery) (page listPage, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucket]
	if b == nil {
		return page, ErrNoSuchBucket
	}
	if l.max == 0 {
		return page, nil
	}
	for i := b.firstBehind(l); i < len(b.objects); {
		o := b.objects[i]
		key := string(o.Key)
		if !strings.HasPrefix(key, l.prefix) {
			break
		}
		group, grouped := l.group(key)
		if grouped && group == l.after {
			i = b.skip(i, group) // a page before had it
			continue
		}
		if page.full(l.max) {
			page.truncated = true
			break
		}
		if grouped {
			page.prefixes = append(page.prefixes, group)
			page.last = group
			i = b.skip(i, group)
		} else {
			page.objects = append(page.objects, o)
			page.last = key
			i++
		}
	}
	return page, nil
}

// group returns the common prefix that key is listed under, if the delimiter follows the prefix.
func (l listQuery) group(key string) (string, bool) {
	if l.delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(l.prefix):], l.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(l.prefix)+i+len(l.delimiter)], true
}

// firstBehind returns the index of the first object that the listing may show.
func (b *bucket) firstBehind(l listQuery) int {
	i, _ := b.find(l.prefix)
	if l.after == "" {
		return i
	}
	j, found := b.find(l.after)
	if found {
		j++
	}
	return max(i, j)
}

// skip returns the index of the first object from i on that does not begin with prefix, where
// object i does.
func (b *bucket) skip(i int, prefix string) int {
	rest := b.objects[i:]
	return i + sort.Search(len(rest), func(k int) bool { return !strings.HasPrefix(string(rest[k].Key), prefix) })
}

// bucketList returns all buckets by name.
func (s *Store) bucketList() []*bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*bucket
	for _, b := range s.buckets {
		out = append(out, b)
	}
	slices.SortFunc(out, func(x, y *bucket) int { return strings.Compare(x.name, y.name) })
	return out
}

// uploadList returns a bucket's unfinished uploads whose key has a prefix, by key and then by age.
func (s *Store) uploadList(bucket, prefix string) ([]*upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucket]
	if b == nil {
		return nil, ErrNoSuchBucket
	}
	var out []*upload
	for _, u := range b.uploads {
		if strings.HasPrefix(string(u.Key), prefix) {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(x, y *upload) int {
		if c := strings.Compare(string(x.Key), string(y.Key)); c != 0 {
			return c
		}
		return strings.Compare(x.id, y.id)
	})
	return out, nil
}
