package main

import (
	"fmt"
	"net/http"
	"testing"

	"imgferry/upload"
)

// A refusal that the encryption may be the reason of is the user's to solve, in whatever way a store spells it.
func TestRefusedEncryption(t *testing.T) {
	for code, want := range map[string]int{
		"kms:KeyNotFound":                          exitUsage, // MinIO
		"KMS.NotFoundException":                    exitUsage, // AWS
		"InvalidEncryptionAlgorithmError":          exitUsage,
		"ServerSideEncryptionConfigurationInvalid": exitUsage,
		"InvalidArgument":                          exitUsage,
		"NotImplemented":                           exitUsage,
		"EntityTooSmall":                           exitFailure,
	} {
		refused := fmt.Errorf("upload: %w", &upload.Error{Op: "begin the upload", Status: http.StatusBadRequest, Code: code, Message: "no"})
		for sse, want := range map[string]int{"kms:nokey": want, "": exitFailure} {
			err := (&sendFlags{sse: sse}).advise(refused, &cloud{}, &sandboxFlags{})
			if got := exitCode(err); got != want {
				t.Errorf("%s with --sse %q: exit code %d, not %d", code, sse, got, want)
			}
		}
	}
}
