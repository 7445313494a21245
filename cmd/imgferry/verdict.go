package main

import "strconv"

// verdict is an exit code that is a command's answer, not a failure: it has said all in words.
type verdict int

func (v verdict) Error() string { return "exit code " + strconv.Itoa(int(v)) }

// coded is a failure whose exit code the command chooses itself.
type coded struct {
	error
	code int
}

func (e *coded) Unwrap() error { return e.error }
