package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"syscall"

	"imgferry/formats"
	"imgferry/ims"
	"imgferry/limits"
	"imgferry/pipeline"
	"imgferry/source"
	"imgferry/upload"
)

// Exit codes. They are part of the interface: scripts branch on them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitCorrupt     = 3
	exitUnsupported = 4
	exitDenied      = 5
	exitNotFound    = 6
	exitUnreachable = 7
	exitImport      = 8
	exitChanged     = 9
	exitExists      = 10
	exitTimeout     = 11
	exitNoSpace     = 12
	exitInterrupted = 130
)

const exitCodesHelp = `Exit codes:
    0  success
    1  another failure
    2  wrong usage, or a value that the service does not take
    3  the image is corrupt
    4  the image is of a format or kind that can't be read, or needs a permission
    5  access denied: wrong or missing credentials or rights
    6  a file, bucket, object or image does not exist
    7  the store or the service could not be reached, or kept failing; try again
    8  the import job failed
    9  the source changed while it was read
   10  the target exists already
   11  the deadline passed while waiting for the import job
   12  no space left
  130  interrupted`

// exitCode says how the process ends after err.
func exitCode(err error) int {
	code, _ := classify(err)
	return code
}

// refKinds are what errors of the policy on names in images begin with.
var refKinds = []string{formats.Backing.String(), formats.ExtentOf.String(), formats.Parent.String(), formats.DataFile.String()}

// classify gives the exit code and the way out. The order matters: an interrupt explains every
// other failure, and the specific comes before the general.
func classify(err error) (code int, hint string) {
	var (
		usage  *usageError
		rule   *limits.Error
		job    *ims.JobError
		killed *ims.ImageError
		call   *ims.APIError
		wait   *ims.WaitError
		store  *upload.Error

		answer verdict
		own    *coded
		image  *formats.Error
		cert   *tls.CertificateVerificationError

		memory *upload.MemoryError
		host   *net.DNSError
	)
	switch {
	case err == nil:
		return 0, ""
	case errors.Is(err, upload.ErrInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted, ""
	case errors.As(err, &answer):
		return int(answer), ""
	case errors.As(err, &own):
		_, hint := classify(own.error)
		return own.code, hint
	case errors.As(err, &usage), errors.As(err, &rule):
		return exitUsage, ""
	case errors.As(err, &memory):
		return exitUsage, "Allow more with --memory."
	case errors.As(err, &job), errors.As(err, &killed):
		return exitImport, "The object is still in the bucket. The code is explained in the service's list of error codes."
	case errors.Is(err, pipeline.ErrChanged):
		return exitChanged, "Shut the machine down or take a snapshot, then run the command again."
	case errors.Is(err, source.ErrChanged):
		return exitChanged, "Somebody replaced it: run the command again."
	case errors.Is(err, pipeline.ErrExists):
		return exitExists, "Use --overwrite to replace it, or --key for another name."
	case errors.Is(err, pipeline.ErrDiffers):
		return exitFailure, "Run the command again with --overwrite to send it anew; if that fails too, look into the store or the machine's memory."
	case errors.Is(err, formats.ErrCorrupt):
		return exitCorrupt, "Fetch the file again, or look into it with the program that made it."
	case errors.As(err, &image) && errors.Is(image, formats.ErrNotAllowed) && !slices.Contains(refKinds, image.Format):
		// Not the policy on names refused it, but the format itself.
		return exitUnsupported, "Such a name is never followed: give the image the name of a file (qemu-img rebase -u)."
	case errors.Is(err, pipeline.ErrRemoteName):
		return exitUnsupported, "Fetch the image and the files that it names into one folder, and use it there."
	case errors.Is(err, formats.ErrNotAllowed):
		return exitUnsupported, "If you trust the image, allow the directory of that file with --allow-backing DIR."
	case errors.Is(err, formats.ErrUnsupported), errors.Is(err, formats.ErrUnknown):
		return exitUnsupported, "Other programs may be able to convert it: qemu-img convert -O qcow2 SRC DST."
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.As(err, &store) && store.Status == http.StatusInsufficientStorage:
		return exitNoSpace, "Free some space or choose another target."
	case errors.As(err, &store) && otherRegion(store.Code):
		return exitUsage, "Name the bucket's region, which must be the image service's too: --region, $" + envRegion + " or imgferry config set region."
	case errors.As(err, &store) && store.Code == "VirtualHostDomainRequired":
		return exitUsage, "Say so: --addressing-style virtual-host, $" + envStyle + " or imgferry config set addressing-style."
	case errors.As(err, &cert):
		return exitUnreachable, "If the service has a certificate authority of its own, name its certificate: --ca-file, $" + envCAFile + " or imgferry config set ca-file."
	case errors.Is(err, upload.ErrClock), errors.Is(err, ims.ErrClock):
		return exitDenied, "Requests are signed with the time: set this machine's clock and its time zone, then run the command again."
	case errors.Is(err, upload.ErrDenied), errors.Is(err, ims.ErrDenied):
		return exitDenied, "Check the access key, the secret key and the account's rights; imgferry config show says where they come from. After a login, log in again: imgferry login."
	case errors.Is(err, source.ErrDenied):
		return exitDenied, "Write the user and the password into the address (https://USER:PASSWORD@HOST/...), or take an address that is signed."
	case errors.Is(err, upload.ErrNoBucket):
		return exitNotFound, "Make the bucket first, in the region of the image service, or name another with --bucket."
	case errors.Is(err, upload.ErrNoObject), errors.Is(err, upload.ErrNoUpload):
		return exitNotFound, "Somebody, or a rule of the bucket, may have removed it: run the same command again."
	case errors.As(err, &call) && errors.Is(call, ims.ErrNotFound):
		return exitNotFound, "If it should be there, check the service's endpoint and the project id."
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ims.ErrNotFound), errors.Is(err, formats.ErrNoSnapshot):
		return exitNotFound, ""
	case errors.As(err, &wait) && errors.Is(err, context.DeadlineExceeded):
		return exitTimeout, ""
	case errors.As(err, &call) && call.Status == http.StatusBadRequest && call.Code == "":
		return exitUsage, "Check the endpoint: this may be another service."
	case errors.As(err, &call) && call.Status == http.StatusBadRequest:
		return exitUsage, "The service's list of error codes explains the code."
	case errors.Is(err, upload.ErrReplaced):
		return exitExists, "Push again, under a key that nobody else uses."
	case errors.As(err, &call) && call.Garbled, upload.Temporary(err) && errors.As(err, &store) && store.Status/100 == 2:
		return exitUnreachable, "Check the endpoint: somebody else may answer there, such as a proxy."
	case upload.Temporary(err) && errors.As(err, &store) && store.Status != 0, errors.As(err, &call) && call.Temporary && call.Status != 0:
		return exitUnreachable, "It answers, but not well: try again later."
	case errors.As(err, &host), upload.Temporary(err), errors.As(err, &call) && call.Temporary:
		return exitUnreachable, "Check the endpoint and the network, then try again."
	}
	if errors.Is(err, source.ErrUnreachable) {
		return exitUnreachable, "Check the address and the network, then try again."
	}
	return exitFailure, ""
}

// otherRegion reports the codes of a store that has the bucket in another region than the request was
// signed for or sent to.
func otherRegion(code string) bool {
	switch code {
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "Redirect":
		return true
	}
	return false
}
