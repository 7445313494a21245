package limits

// Code is an error code of the image service (reference, appendix B).
type Code string

// The codes of the rules in this package, and those that the sandbox's service answers with.
const (
	RequestFormat         Code = "IMG.0001"
	NameTooLong           Code = "IMG.0002"
	NameFormat            Code = "IMG.0003"
	DescriptionTooLong    Code = "IMG.0004"
	InstanceUnknown       Code = "IMG.0005"
	RequestEmpty          Code = "IMG.0007"
	InstanceMissing       Code = "IMG.0012"
	NameMissing           Code = "IMG.0013"
	QuotaReached          Code = "IMG.0015"
	URLFormat             Code = "IMG.0017"
	BackupMissing         Code = "IMG.0019"
	BackupUnknown         Code = "IMG.0020"
	ImageTypeWrong        Code = "IMG.0024"
	ImageIDUnknown        Code = "IMG.0027"
	ImageProtected        Code = "IMG.0028"
	BackupUsed            Code = "IMG.0029"
	ProjectForeign        Code = "IMG.0030"
	ResourceWrong         Code = "IMG.0031"
	AttributeConflict     Code = "IMG.0035"
	ImageUnavailable      Code = "IMG.0046"
	NotOwner              Code = "IMG.0047"
	DescriptionFormat     Code = "IMG.0054"
	DiskSize              Code = "IMG.0055"
	OSVersionInvalid      Code = "IMG.0056"
	FileDamaged           Code = "IMG.0057"
	FileTooLarge          Code = "IMG.0059"
	TooManyTasks          Code = "IMG.0060"
	SystemError           Code = "IMG.0061"
	ProjectWrong          Code = "IMG.0067"
	BucketMissing         Code = "IMG.0068"
	BucketUnreachable     Code = "IMG.0069"
	ObjectExists          Code = "IMG.0070"
	FormatUnsupported     Code = "IMG.0072"
	ExportNameMissing     Code = "IMG.0073"
	KeyTooLong            Code = "IMG.0074"
	KeyFormat             Code = "IMG.0075"
	ShareWithSelf         Code = "IMG.0076"
	BackupNotExportable   Code = "IMG.0080"
	TokenWrong            Code = "IMG.0087"
	ShareQuotaReached     Code = "IMG.0088"
	ImageInCreation       Code = "IMG.0090"
	DeleteNotOwner        Code = "IMG.0092"
	KeyUnknown            Code = "IMG.0095"
	KeySame               Code = "IMG.0096"
	EncryptedNotShareable Code = "IMG.0098"
	NotSupported          Code = "IMG.0105"
	BucketFormat          Code = "IMG.0109"
	TagInvalid            Code = "IMG.0115"
	TagQuotaReached       Code = "IMG.0116"
	SourceTypeWrong       Code = "IMG.0117"
	BMSEncrypted          Code = "IMG.0118"
	NoSystemDisk          Code = "IMG.0119"
	VolumeUnknown         Code = "IMG.0120"
	ObjectUnknown         Code = "IMG.0121"
	OSTypeInvalid         Code = "IMG.0122"
	ObjectTwice           Code = "IMG.0123"
	WholeNotExportable    Code = "IMG.0128"
	WholeNotCopyable      Code = "IMG.0130"
	WholeNotShareable     Code = "IMG.0135"
	VolumesApart          Code = "IMG.0140"
	FirmwareInvalid       Code = "IMG.0141"
	RegionSame            Code = "IMG.0142"
	EncryptedNotCopyable  Code = "IMG.0143"
	ProjectNameWrong      Code = "IMG.0145"
	CopyTooLarge          Code = "IMG.0146"
	RegionUnknown         Code = "IMG.0147"
	ImageInExport         Code = "IMG.0148"
	TooManyCopies         Code = "IMG.0149"
	AgencyWrong           Code = "IMG.0151"
	FastFormat            Code = "IMG.0158"
	OSVersionMissing      Code = "IMG.0159"
	ExportTooLarge        Code = "IMG.0160"
	ISOVersionMissing     Code = "IMG.0166"
	ISONotSupported       Code = "IMG.0167"
	KeySpaces             Code = "IMG.0175"
	VaultUnknown          Code = "IMG.0184"
	BackupKindWrong       Code = "IMG.0190"
	TooManyDataImages     Code = "IMG.0194"
	ShareNotAccepted      Code = "IMG.0196"
	SharedNotEncrypted    Code = "IMG.0197"
	ArchitectureWrong     Code = "IMG.0212"
	RegisterFailed        Code = "IMG.1075"
)

// Text returns the service's own English text for the code, or "" for one that is not in the reference.
func (c Code) Text() string { return texts[c] }

// texts are all codes of the reference's appendix B, in its words.
var texts = map[Code]string{
	"IMG.0001": "The request message format is invalid.",
	"IMG.0002": "The image name contains more than 128 characters.",
	"IMG.0003": "The image name format is invalid.",
	"IMG.0004": "The description contains more than 1024 characters.",
	"IMG.0005": "The ECS does not exist.",
	"IMG.0006": "The ECS system disk cannot be used to create an image.",
	"IMG.0007": "The request body is empty.",
	"IMG.0008": "The ECS cannot be used to create images because it is not in stopped state.",
	"IMG.0009": "The image name already exists.",
	"IMG.0010": "The ECS cannot be used to create an image because it has in-progress tasks.",
	"IMG.0011": "forceCreate must be set to true.",
	"IMG.0012": "The ECS ID is not specified.",
	"IMG.0013": "The image name is not specified.",
	"IMG.0014": "An exception occurred when IaaS OpenStack was executing the task.",
	"IMG.0015": "The number of private images has reached the maximum allowed.",
	"IMG.0016": "An error occurred when the request body was deleted.",
	"IMG.0017": "The URL format is incorrect.",
	"IMG.0018": "An error occurred when the job was submitted.",
	"IMG.0019": "The backup ID is not specified.",
	"IMG.0020": "The backup does not exist.",
	"IMG.0021": "The resource type is unknown.",
	"IMG.0022": "The disk in the current state cannot be used to create images.",
	"IMG.0023": "An exception occurred during task query.",
	"IMG.0024": "The image type in the request is incorrect.",
	"IMG.0025": "The user type in the request is incorrect.",
	"IMG.0026": "The role is invalid. You need to apply for the required permissions or pass the real-name authentication.",
	"IMG.0027": "The image ID in the request does not exist.",
	"IMG.0028": "The image in the request is protected.",
	"IMG.0029": "The backup in the request has already been used to create an image.",
	"IMG.0030": "The project ID and token in the request are invalid.",
	"IMG.0031": "The resource ID in the request is incorrect.",
	"IMG.0032": "The backup is unavailable.",
	"IMG.0033": "The backup is not a system disk backup.",
	"IMG.0034": "The number of images cannot be modified.",
	"IMG.0035": "An attribute conflict occurred during the modification.",
	"IMG.0036": "An error occurred when the value of assumeToken was obtained.",
	"IMG.0037": "An error occurred in the AK/SK was obtained.",
	"IMG.0038": "An error occurred when the bucket was created.",
	"IMG.0039": "An error occurred when read and write permissions of the bucket was granted to a specified user.",
	"IMG.0040": "An error occurred in the object storage address was obtained.",
	"IMG.0041": "The authorized account is empty.",
	"IMG.0045": "Failed to generate the image product code.",
	"IMG.0046": "The image is unavailable.",
	"IMG.0047": "This operation can be performed only by the image owner.",
	"IMG.0053": "An error occurred when the domain information of the shadow account was obtained.",
	"IMG.0054": "The image description format is invalid.",
	"IMG.0055": "The memory or disk size is invalid.",
	"IMG.0056": "The OS version is invalid.",
	"IMG.0057": "The image file is empty, not found, or in incorrect format, or you do not have enough permission to access the file.",
	"IMG.0058": "The region of the bucket where the image file is stored is inconsistent with that of the user.",
	"IMG.0059": "The size of the image file exceeds the maximum allowed.",
	"IMG.0060": "The number of tasks exceeds the flow control limit.",
	"IMG.0061": "Unknown system error.",
	"IMG.0062": "The image name is incorrect.",
	"IMG.0063": "The VM type does not support image creation.",
	"IMG.0064": "Failed to obtain tenant information from IAM.",
	"IMG.0065": "Failed to obtain the tenant domain from IAM.",
	"IMG.0066": "The image ID is incorrect.",
	"IMG.0067": "The project ID is incorrect.",
	"IMG.0068": "The specified bucket name is empty.",
	"IMG.0069": "The specified bucket cannot be accessed.",
	"IMG.0070": "The image file already exists. Confirm the file in the corresponding directory of the OBS bucket or in the OBS bucket.",
	"IMG.0071": "The image cannot be exported.",
	"IMG.0072": "The specified image format is not supported.",
	"IMG.0073": "The name of the exported file is empty.",
	"IMG.0074": "The file name length exceeds the limit.",
	"IMG.0075": "The file name contains invalid characters.",
	"IMG.0076": "You cannot share an image with yourself.",
	"IMG.0077": "The public image cannot be exported.",
	"IMG.0079": "The system disk image created from a charged image cannot be exported.",
	"IMG.0080": "The image created from a CBR backup cannot be exported.",
	"IMG.0081": "The image cannot be exported because it is created from an image file.",
	"IMG.0083": "The image is a public image.",
	"IMG.0084": "The image is a private image.",
	"IMG.0085": "The publishing mode is incorrect.",
	"IMG.0086": "No image was found.",
	"IMG.0087": "The token is incorrect.",
	"IMG.0088": "The number of shared images has reached the maximum allowed.",
	"IMG.0089": "The public image or Marketplace image cannot be shared.",
	"IMG.0090": "The image being created cannot be deleted.",
	"IMG.0092": "The image can only be deleted by the owner.",
	"IMG.0094": "The public image cannot be deleted.",
	"IMG.0095": "The KMS key does not exist.",
	"IMG.0096": "The specified KMS key ID must be different from the image key ID.",
	"IMG.0097": "The key is not enabled.",
	"IMG.0098": "The encrypted image cannot be shared or published in Marketplace.",
	"IMG.0099": "You do not have the permission to access the key.",
	"IMG.0100": "You do not have OBT permission of KMS.",
	"IMG.0101": "The original key does not exist.",
	"IMG.0102": "The original key is not enabled.",
	"IMG.0103": "You do not have the permission to access the original key.",
	"IMG.0104": "Enter the project name if there are multiple projects in the same region.",
	"IMG.0105": "The operation is not supported.",
	"IMG.0106": "The image owner is another tenant.",
	"IMG.0108": "The tenant ID was not found in the current region.",
	"IMG.0109": "The bucket name contains invalid characters.",
	"IMG.0110": "The system disk is unavailable and cannot be used to create images.",
	"IMG.0111": "The size of the system disk exceeds the maximum allowed.",
	"IMG.0112": "Failed to add the tenant.",
	"IMG.0113": "Failed to delete the tenant.",
	"IMG.0114": "Failed to query the tenant details.",
	"IMG.0115": "The image tag is invalid.",
	"IMG.0116": "The number of image tags exceeds the quota.",
	"IMG.0117": "The image source can only be BMS or ECS.",
	"IMG.0118": "The BMS image does not support KMS encryption.",
	"IMG.0119": "The VM does not have a system disk.",
	"IMG.0120": "The specified data disk ID is unavailable.",
	"IMG.0121": "The object cannot be found.",
	"IMG.0122": "The OS type is invalid.",
	"IMG.0123": "The image file address in the request is duplicate.",
	"IMG.0125": "The data disk image cannot be converted to a public image.",
	"IMG.0126": "The VM in the current stage cannot be used to create a full-ECS image.",
	"IMG.0128": "The full-ECS image cannot be exported.",
	"IMG.0130": "The full-ECS image cannot be exported or replicated.",
	"IMG.0135": "The full-ECS image cannot be shared.",
	"IMG.0136": "Failed to create a full-ECS image because the ECS is being backed up.",
	"IMG.0137": "Failed to obtain the VM information.",
	"IMG.0138": "Failed to obtain the OS type information.",
	"IMG.0139": "Other disks on the VM are being used to created VMs.",
	"IMG.0140": "The disks in the request come from different ECSSs.",
	"IMG.0141": "The value of hw_firmware_type is not uefi or bios.",
	"IMG.0142": "Replication must be performed across regions.",
	"IMG.0143": "An encrypted image cannot be replicated cross regions.",
	"IMG.0144": "The image does not exist.",
	"IMG.0145": "The project name is incorrect.",
	"IMG.0146": "The size of the image to be replicated across regions exceeds the upper limit.",
	"IMG.0147": "The entered region information is incorrect.",
	"IMG.0148": "The image is being exported.",
	"IMG.0149": "The number of image replicated cross regions exceeds the maximum number allowed at a time.",
	"IMG.0150": "The CSBS backup used to create the full-ECS image already exists in the destination region and cannot be used again.",
	"IMG.0151": "The agency does not have the needed permissions to perform this operation on the target project.",
	"IMG.0152": "The full-ECS image is available only in the specified AZ.",
	"IMG.0153": "DESS or DSS disks cannot be used to create images.",
	"IMG.0154": "Failed to communicate with Enterprise Project Management Service (EPS).",
	"IMG.0157": "Incorrect image type.",
	"IMG.0158": "Only image files in raw OR ZVHD2 format support the Fast Create function. For raw image files, bitmaps must be uploaded to the OBS bucket together with image files.",
	"IMG.0159": "The OS version is required when image files are used to create ECSs through the Fast Create function.",
	"IMG.0160": "Only images less than 128 GB can be exported.",
	"IMG.0161": "You do not have permission.",
	"IMG.0162": "The value contains a maximum of 12 characters that consist of letters and spaces, and cannot start or end with a space.",
	"IMG.0163": "This image cannot be titled by vendors. Only images running a Windows OS booted in BIOS mode can be titled by vendors.",
	"IMG.0164": "Failed to create an image because the spot ECS is being reclaimed.",
	"IMG.0166": "OS information must be contained in the ISO files used to create images.",
	"IMG.0167": "This operation cannot be performed for ISO images.",
	"IMG.0168": "Data disk images cannot be updated.",
	"IMG.0169": "Failed to update the image because the OS versions are different.",
	"IMG.0170": "Failed to update the image because the image formats are different.",
	"IMG.0171": "Failed to update the image because the minimum disk space is less than that of the source image.",
	"IMG.0172": "Failed to update the image because the minimum memory is less than that of the source image.",
	"IMG.0173": "Failed to update the image because the image environment types are different.",
	"IMG.0174": "Failed to update the image because the name of the source image is different from that of the target image.",
	"IMG.0175": "The folder name and image file name cannot contain spaces.",
	"IMG.0176": "Failed to delete the full-ECS backup.",
	"IMG.0177": "The source and target tenants reside in different regions.",
	"IMG.0178": "The target tenant is the same as the source tenant.",
	"IMG.0179": "The token of the source image agency is invalid.",
	"IMG.0180": "CBR does not support full-ECS image creation.",
	"IMG.0181": "Failed to obtain ECSs that can be protected.",
	"IMG.0182": "Insufficient vault capacity. Please expand the capacity.",
	"IMG.0183": "The ECS can only be associated with one vault.",
	"IMG.0184": "Failed to obtain the vault.",
	"IMG.0185": "The number of ECSSs associated with the vault has reached the upper limit.",
	"IMG.0187": "KMS access traffic has reached the upper limit.",
	"IMG.0188": "Vault is unavailable.",
	"IMG.0189": "The target CBR vault does not support image replication.",
	"IMG.0190": "Full-ECS images can be created only from CBR backups.",
	"IMG.0191": "Failed to query ECS flavors.",
	"IMG.0192": "The flavor used to query images is invalid.",
	"IMG.0193": "The vault is not a cloud server backup vault.",
	"IMG.0194": "The maximum number of images that can be imported at one time has been reached.",
	"IMG.0195": "Full-ECS images created from CBR backups must contain an OS.",
	"IMG.0196": "The image cannot be replicated because it is not accepted by the recipient.",
	"IMG.0197": "Failed to replicate the shared image because it is encrypted using KMS.",
	"IMG.0198": "Backup ID does not match the backup type or does not exist.",
	"IMG.0212": "The value of architecture is not x86 or arm.",
	"IMG.0238": "Not real-name authentication.",
	"IMG.0239": "Insufficient balance.",
	"IMG.0241": "Incomplete payment information.",
	"IMG.0242": "Insufficient budget of enterprise department.",
	"IMG.1075": "Failed to register the image file.",
}

// Codes returns every code of the reference, in no particular order.
func Codes() []Code {
	codes := make([]Code, 0, len(texts))
	for c := range texts {
		codes = append(codes, c)
	}
	return codes
}
