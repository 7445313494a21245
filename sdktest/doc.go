// Package sdktest holds the vendor's official Go SDK against the sandbox. It is a module of its own, so that
// nobody who builds or uses imgferry downloads the SDK.
package sdktest
