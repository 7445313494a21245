//go:build race

package main

// raced says that the race detector watches, which makes everything many times slower. What is new with it
// is which goroutines meet, not what they compute: tests that repeat themselves repeat less. The whole of
// them runs without it.
const raced = true
