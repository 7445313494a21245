package imageservice

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// counts are what has happened since the service was opened.
type counts struct {
	mu       sync.Mutex
	requests map[[3]string]int64 // method, path, status
	jobs     map[[2]string]int64 // type, result
}

func (c *counts) init() {
	c.requests, c.jobs = make(map[[3]string]int64), make(map[[2]string]int64)
}

// request counts an answer. path is one of the routes, or "" for what is none: their number is bounded.
func (c *counts) request(method, path string, status int) {
	if path == "" {
		method = "" // anybody's choice
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[[3]string{method, path, fmt.Sprint(status)}]++
}

func (c *counts) job(kind string, ok bool) {
	result := "fail"
	if ok {
		result = "success"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[[2]string{kind, result}]++
}

// WriteMetrics writes what has happened, and what is under way, in Prometheus' text format 0.0.4.
func (s *Service) WriteMetrics(w io.Writer) error {
	status := make(map[string]int64)
	err := s.state.view(func(t tx) error {
		return each(t, imagesBucket, func(i image) { status[i.Status]++ })
	})
	if err != nil {
		return err
	}
	var b strings.Builder
	head := func(name, kind, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	s.counts.mu.Lock()
	head("imgferry_sandbox_requests_total", "counter", "Answers of the image service.")
	for _, k := range slices.SortedFunc(maps.Keys(s.counts.requests), func(a, b [3]string) int { return slices.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&b, "imgferry_sandbox_requests_total{method=%q,path=%q,status=%q} %d\n", k[0], k[1], k[2], s.counts.requests[k])
	}
	head("imgferry_sandbox_jobs_total", "counter", "Jobs that ended.")
	for _, k := range slices.SortedFunc(maps.Keys(s.counts.jobs), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&b, "imgferry_sandbox_jobs_total{type=%q,result=%q} %d\n", k[0], k[1], s.counts.jobs[k])
	}
	s.counts.mu.Unlock()
	s.mu.Lock()
	pending := s.pending
	s.mu.Unlock()
	head("imgferry_sandbox_jobs", "gauge", "Jobs that run or wait.")
	fmt.Fprintf(&b, "imgferry_sandbox_jobs %d\n", pending)
	head("imgferry_sandbox_images", "gauge", "Images by their status.")
	for _, k := range slices.Sorted(maps.Keys(status)) {
		fmt.Fprintf(&b, "imgferry_sandbox_images{status=%q} %d\n", k, status[k])
	}
	_, err = io.WriteString(w, b.String())
	return err
}
