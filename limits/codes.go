package limits

// Code is an error code of the image service (reference, appendix B).
type Code string

// The codes of the rules in this package and of the fast import's job.
const (
	RequestFormat      Code = "IMG.0001"
	NameTooLong        Code = "IMG.0002"
	NameFormat         Code = "IMG.0003"
	DescriptionTooLong Code = "IMG.0004"
	RequestEmpty       Code = "IMG.0007"
	NameMissing        Code = "IMG.0013"
	URLFormat          Code = "IMG.0017"
	ImageTypeWrong     Code = "IMG.0024"
	ImageIDUnknown     Code = "IMG.0027"
	DescriptionFormat  Code = "IMG.0054"
	DiskSize           Code = "IMG.0055"
	OSVersionInvalid   Code = "IMG.0056"
	FileDamaged        Code = "IMG.0057"
	FileTooLarge       Code = "IMG.0059"
	TooManyTasks       Code = "IMG.0060"
	SystemError        Code = "IMG.0061"
	ProjectWrong       Code = "IMG.0067"
	BucketMissing      Code = "IMG.0068"
	KeyTooLong         Code = "IMG.0074"
	KeyFormat          Code = "IMG.0075"
	ImageInCreation    Code = "IMG.0090"
	BucketFormat       Code = "IMG.0109"
	TagInvalid         Code = "IMG.0115"
	ObjectUnknown      Code = "IMG.0121"
	OSTypeInvalid      Code = "IMG.0122"
	FirmwareInvalid    Code = "IMG.0141"
	FastFormat         Code = "IMG.0158"
	OSVersionMissing   Code = "IMG.0159"
	KeySpaces          Code = "IMG.0175"
	ArchitectureWrong  Code = "IMG.0212"
)

// Text returns the service's own English text for the code, or "" for one that this package has no use
// for.
func (c Code) Text() string {
	switch c {
	case RequestFormat:
		return "The request message format is invalid."
	case NameTooLong:
		return "The image name contains more than 128 characters."
	case NameFormat:
		return "The image name format is invalid."
	case DescriptionTooLong:
		return "The description contains more than 1024 characters."
	case RequestEmpty:
		return "The request body is empty."
	case NameMissing:
		return "The image name is not specified."
	case URLFormat:
		return "The URL format is incorrect."
	case ImageTypeWrong:
		return "The image type in the request is incorrect."
	case ImageIDUnknown:
		return "The image ID in the request does not exist."
	case DescriptionFormat:
		return "The image description format is invalid."
	case DiskSize:
		return "The memory or disk size is invalid."
	case OSVersionInvalid:
		return "The OS version is invalid."
	case FileDamaged:
		return "The image file is empty, not found, or in incorrect format, or you do not have enough permission to access the file."
	case FileTooLarge:
		return "The size of the image file exceeds the maximum allowed."
	case TooManyTasks:
		return "The number of tasks exceeds the flow control limit."
	case SystemError:
		return "Unknown system error."
	case ProjectWrong:
		return "The project ID is incorrect."
	case BucketMissing:
		return "The specified bucket name is empty."
	case KeyTooLong:
		return "The file name length exceeds the limit."
	case KeyFormat:
		return "The file name contains invalid characters."
	case ImageInCreation:
		return "The image being created cannot be deleted."
	case BucketFormat:
		return "The bucket name contains invalid characters."
	case TagInvalid:
		return "The image tag is invalid."
	case ObjectUnknown:
		return "The object cannot be found."
	case OSTypeInvalid:
		return "The OS type is invalid."
	case FirmwareInvalid:
		return "The value of hw_firmware_type is not uefi or bios."
	case FastFormat:
		return "Only image files in raw OR ZVHD2 format support the Fast Create function. For raw image files, bitmaps must be uploaded to the OBS bucket together with image files."
	case OSVersionMissing:
		return "The OS version is required when image files are used to create ECSs through the Fast Create function."
	case KeySpaces:
		return "The folder name and image file name cannot contain spaces."
	case ArchitectureWrong:
		return "The value of architecture is not x86 or arm."
	}
	return ""
}
