package imageservice

import (
	"cmp"
	"net/http"
	"path"
	"slices"
	"strings"

	"imgferry/ims"
	"imgferry/limits"
)

// common are the fields that all requests for a new image have.
type common struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Tags        []string  `json:"tags"`
	ImageTags   []ims.Tag `json:"image_tags"`
	Enterprise  string    `json:"enterprise_project_id"`
	MinRAM      int       `json:"min_ram"`
	MaxRAM      int       `json:"max_ram"`
}

// image checks the fields and returns the image that is to be made.
func (c common) image(s *Service, r request) (*image, error) {
	tags, err := checkTags(c.Tags, c.ImageTags)
	if err := firstOf(limits.Name(c.Name), limits.Description(c.Description), err, limits.Memory(c.MinRAM, c.MaxRAM)); err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	return &image{
		ID: newUUID(), Owner: r.project, Region: r.region, Status: ims.StatusQueued, DiskFormat: zvhd2Name,
		Name: c.Name, Description: c.Description, Tags: tags, Enterprise: c.Enterprise, MinRAM: c.MinRAM, MaxRAM: c.MaxRAM,
		Environment: environment(""), Created: now, Updated: now,
	}, nil
}

// firstOf returns the first error there is.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkTags checks either list of tags, and writes them as they are listed: "key=value".
func checkTags(plain []string, pairs []ims.Tag) ([]string, error) {
	if len(plain) > 0 && len(pairs) > 0 {
		return nil, refuse(limits.TagInvalid, "tags and image_tags are both given: use one of them")
	}
	for _, s := range plain {
		key, value := limits.SplitTag(s)
		pairs = append(pairs, ims.Tag{Key: key, Value: value})
	}
	var tags []string
	seen := make(map[string]bool)
	for _, t := range pairs {
		if err := limits.Tag(t.Key, t.Value); err != nil {
			return nil, err
		}
		if seen[t.Key] {
			return nil, refuse(limits.TagInvalid, "the tag key %s is given twice: keys are unique", shown(t.Key))
		}
		seen[t.Key] = true
		tags = append(tags, t.Key+"="+t.Value)
	}
	return tags, image{Tags: tags}.checkTagQuota()
}

// quickImport is POST /v2/cloudimages/quickimport/action (reference, 5.1.4).
func (s *Service) quickImport(r request) (int, any, error) {
	var q ims.QuickImportRequest
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if err := firstOf(q.Check(), checkOSVersion(q.OSVersion)); err != nil {
		return 0, nil, err
	}
	i, err := common{Name: q.Name, Description: q.Description, Tags: q.Tags, ImageTags: q.ImageTags, Enterprise: q.EnterpriseProjectID}.image(s, r)
	if err != nil {
		return 0, nil, err
	}
	i.OSVersion, i.OSType, i.MinDisk, i.Environment = q.OSVersion, q.OSType, q.MinDisk, environment(q.Type)
	i.Architecture, i.Firmware, i.Origin = q.Architecture, q.Firmware, "file,"+q.ImageURL
	kind := jobImport
	if i.data() {
		kind = jobImportData
	}
	return s.submit(r, s.newTask(r, kind, i, step{Import: &importStep{URL: q.ImageURL, Fast: true, Kind: limits.FastImport}}), nil)
}

// dataDisk is an element of data_images, which is either a volume or a file.
type dataDisk struct {
	common
	Volume   string `json:"volume_id"`
	ImageURL string `json:"image_url"`
	MinDisk  int    `json:"min_disk"`
	Quick    bool   `json:"is_quick_import"`
}

// createRequest is the body of POST /v2/cloudimages/action, whatever the image is made from.
type createRequest struct {
	common
	Instance     string     `json:"instance_id"`
	Volume       string     `json:"volume_id"`
	ImageURL     string     `json:"image_url"`
	OSType       string     `json:"os_type"`
	OSVersion    string     `json:"os_version"`
	MinDisk      int        `json:"min_disk"`
	CMK          string     `json:"cmk_id"`
	Type         string     `json:"type"`
	Architecture string     `json:"architecture"`
	Firmware     string     `json:"hw_firmware_type"`
	Quick        bool       `json:"is_quick_import"`
	DataImages   []dataDisk `json:"data_images"`
}

// createImage is POST /v2/cloudimages/action (reference, 5.1.3): from an object, an instance, a volume, or
// volumes to data disk images.
func (s *Service) createImage(r request) (int, any, error) {
	var q createRequest
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if err := firstOf(limits.CreateType(q.Type), limits.Architecture(q.Architecture), limits.Firmware(q.Firmware), limits.OSType(q.OSType), s.checkKey(q.CMK)); err != nil {
		return 0, nil, err
	}
	if environment(q.Type) == "Ironic" && q.CMK != "" {
		return 0, nil, refuse(limits.BMSEncrypted, "leave out cmk_id")
	}
	var k task
	var err error
	switch {
	case q.ImageURL != "":
		k, err = s.fromObject(r, q)
	case q.Instance != "":
		k, err = s.fromInstance(r, q)
	case q.Volume != "":
		k, err = s.fromVolume(r, q)
	case len(q.DataImages) > 0:
		k, err = s.fromDataVolumes(r, q)
	default:
		err = refuse(limits.InstanceMissing, "give an image_url, an instance_id, a volume_id or data_images")
	}
	if err != nil {
		return 0, nil, err
	}
	return s.submit(r, k, nil)
}

// fromObject is an import of a system disk and up to three data disks beside it.
func (s *Service) fromObject(r request, q createRequest) (task, error) {
	i, err := q.image(s, r)
	if err != nil {
		return task{}, err
	}
	_, key, err := limits.SplitImageURL(q.ImageURL)
	iso := q.Type == limits.TypeISO || strings.EqualFold(path.Ext(key), ".iso")
	st := importStep{URL: q.ImageURL, Kind: limits.SystemImport, ISO: iso}
	if q.Quick {
		st.Fast, st.Kind = true, limits.FastImport
	}
	switch {
	case err != nil:
		return task{}, err
	case iso && q.OSVersion == "":
		return task{}, refuse(limits.ISOVersionMissing, "give os_version")
	case q.Quick:
		err = limits.OSVersion(limits.TypeECS, q.OSVersion)
	default:
		err = limits.OSVersion(limits.TypeData, q.OSVersion) // the service looks into the disk otherwise
	}
	if err := firstOf(err, checkOSVersion(q.OSVersion), limits.CheckMinDisk(st.Kind, q.MinDisk, 0)); err != nil {
		return task{}, err
	}
	i.OSVersion, i.OSType, i.MinDisk = cmp.Or(q.OSVersion, defaultOSVersion), q.OSType, q.MinDisk
	i.Environment, i.Architecture, i.Firmware, i.CMK, i.Origin = environment(q.Type), q.Architecture, q.Firmware, q.CMK, "file,"+q.ImageURL
	if iso {
		i.Environment, i.DiskFormat = environment(limits.TypeISO), "iso"
	}
	k := s.newTask(r, jobImport, i, step{Import: &st})
	if len(q.DataImages) > limits.MaxDataDisks {
		return task{}, refuse(limits.TooManyDataImages, "%d data disks are given, the most is %d", len(q.DataImages), limits.MaxDataDisks)
	}
	urls := []string{q.ImageURL}
	for n, d := range q.DataImages {
		d.Name = cmp.Or(d.Name, q.Name+"-data"+string(rune('1'+n)))
		if slices.Contains(urls, d.ImageURL) {
			return task{}, refuse(limits.ObjectTwice, "%s is given twice", shown(d.ImageURL))
		}
		urls = append(urls, d.ImageURL)
		part, err := s.dataDiskTask(r, d, dataTarget{osType: systemOf(*i).kind, cmk: q.CMK, kind: limits.AttachedDataImport})
		if err != nil {
			return task{}, err
		}
		k.parts = append(k.parts, part)
	}
	return k, nil
}

// defaultOSVersion is what an image is taken for that says nothing (reference, 6.1.6).
const defaultOSVersion = "Other Linux(64 bit)"

// dataTarget is what a data disk's image gets from its surroundings.
type dataTarget struct {
	osType, cmk string
	kind        limits.Import
}

// dataDiskTask is an import of a data disk.
func (s *Service) dataDiskTask(r request, d dataDisk, target dataTarget) (task, error) {
	i, err := d.image(s, r)
	if err != nil {
		return task{}, err
	}
	_, _, err = limits.SplitImageURL(d.ImageURL)
	if err := firstOf(err, limits.CheckMinDisk(target.kind, d.MinDisk, 0)); err != nil {
		return task{}, err
	}
	i.Environment, i.OSType, i.MinDisk, i.CMK, i.Origin = environment(limits.TypeData), target.osType, d.MinDisk, target.cmk, "file,"+d.ImageURL
	st := importStep{URL: d.ImageURL, Kind: target.kind}
	if d.Quick {
		st.Fast, st.Kind = true, limits.FastImport
	}
	return s.newTask(r, jobImportData, i, step{Import: &st}), nil
}

// createDataImage is POST /v1/cloudimages/dataimages/action (reference, 5.1.5).
func (s *Service) createDataImage(r request) (int, any, error) {
	var q struct {
		dataDisk
		OSType string `json:"os_type"`
		CMK    string `json:"cmk_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if err := firstOf(limits.DataOSType(q.OSType), s.checkKey(q.CMK)); err != nil {
		return 0, nil, err
	}
	k, err := s.dataDiskTask(r, q.dataDisk, dataTarget{cmp.Or(q.OSType, "Linux"), q.CMK, limits.DataImport})
	if err != nil {
		return 0, nil, err
	}
	return s.submit(r, k, nil)
}

// fromInstance is an image of an instance's system disk.
func (s *Service) fromInstance(r request, q createRequest) (task, error) {
	if len(q.DataImages) > 0 {
		return task{}, refuse(limits.RequestFormat, "data_images and instance_id don't go together")
	}
	files, ok := s.cfg.Resources.Instances[q.Instance]
	switch {
	case !ok:
		return task{}, refuse(limits.InstanceUnknown, "there is no instance %s", shown(q.Instance))
	case len(files) == 0:
		return task{}, refuse(limits.NoSystemDisk, "instance %s has no disk", shown(q.Instance))
	}
	i, err := q.image(s, r)
	if err != nil {
		return task{}, err
	}
	i.OSVersion, i.OSType, i.Environment, i.CMK, i.Origin = cmp.Or(q.OSVersion, defaultOSVersion), q.OSType, environment(q.Type), q.CMK, "instance,"+q.Instance
	return s.newTask(r, jobInstance, i, step{Take: &takeStep{Instance: q.Instance}}), nil
}

// fromVolume is a system disk image of a volume.
func (s *Service) fromVolume(r request, q createRequest) (task, error) {
	if _, ok := s.cfg.Resources.Volumes[q.Volume]; !ok {
		return task{}, refuse(limits.VolumeUnknown, "there is no volume %s", shown(q.Volume))
	}
	if q.OSVersion == "" {
		return task{}, refuse(limits.OSVersionInvalid, "an image of a volume needs os_version")
	}
	if q.Type == limits.TypeISO {
		return task{}, refuse(limits.SourceTypeWrong, "a volume makes no %s", q.Type)
	}
	i, err := q.image(s, r)
	if err := firstOf(err, limits.OSVersion(limits.TypeECS, q.OSVersion), checkOSVersion(q.OSVersion)); err != nil {
		return task{}, err
	}
	i.OSVersion, i.Environment, i.Architecture, i.Firmware, i.CMK, i.Origin = q.OSVersion, environment(q.Type), q.Architecture, q.Firmware, q.CMK, "volume,"+q.Volume
	return s.newTask(r, jobVolume, i, step{Take: &takeStep{Volume: q.Volume}}), nil
}

// fromDataVolumes is a data disk image of each of several volumes of one instance.
func (s *Service) fromDataVolumes(r request, q createRequest) (task, error) {
	if len(q.DataImages) > limits.MaxDataDisks {
		return task{}, refuse(limits.TooManyDataImages, "%d volumes are given, the most is %d", len(q.DataImages), limits.MaxDataDisks)
	}
	k := s.newTask(r, jobVolume, nil, step{})
	var instances []string
	for _, d := range q.DataImages {
		if _, ok := s.cfg.Resources.Volumes[d.Volume]; !ok {
			return task{}, refuse(limits.VolumeUnknown, "there is no volume %s", shown(d.Volume))
		}
		instances = append(instances, s.cfg.Resources.attached(d.Volume))
		i, err := d.image(s, r)
		if err != nil {
			return task{}, err
		}
		i.Environment, i.OSType, i.CMK, i.Origin = environment(limits.TypeData), "Linux", q.CMK, "volume,"+d.Volume
		k.parts = append(k.parts, s.newTask(r, jobVolume, i, step{Take: &takeStep{Volume: d.Volume}}))
	}
	if slices.Sort(instances); instances[0] != instances[len(instances)-1] {
		return task{}, refuse(limits.VolumesApart, "they are of %s and %s", shown(instances[0]), shown(instances[len(instances)-1]))
	}
	// Clients look for an image in the job itself.
	k.job.ImageID, k.job.ImageName = k.parts[0].image.ID, k.parts[0].image.Name
	return k, nil
}

// createWholeImage is POST /v1/cloudimages/wholeimages/action (reference, 5.1.6): from an instance or a backup.
func (s *Service) createWholeImage(r request) (int, any, error) {
	var q struct {
		common
		Instance string `json:"instance_id"`
		Backup   string `json:"backup_id"`
		Kind     string `json:"whole_image_type"`
		Vault    string `json:"vault_id"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	i, err := q.image(s, r)
	if err != nil {
		return 0, nil, err
	}
	i.Whole, i.OSVersion = true, defaultOSVersion
	if q.Backup == "" {
		if q.Kind != "" && q.Instance == "" {
			return 0, nil, refuse(limits.BackupMissing, "give backup_id")
		}
		files, ok := s.cfg.Resources.Instances[q.Instance]
		switch {
		case q.Instance == "":
			return 0, nil, refuse(limits.InstanceMissing, "give instance_id or backup_id")
		case !ok:
			return 0, nil, refuse(limits.InstanceUnknown, "there is no instance %s", shown(q.Instance))
		case len(files) == 0:
			return 0, nil, refuse(limits.NoSystemDisk, "instance %s has no disk", shown(q.Instance))
		}
		if err := s.checkVault(q.Vault); err != nil {
			return 0, nil, err
		}
		i.Origin = "instance," + q.Instance
		return s.submit(r, s.newTask(r, jobWholeServer, i, step{Take: &takeStep{Instance: q.Instance, All: true}}), nil)
	}
	switch files, ok := s.cfg.Resources.Backups[q.Backup]; {
	case !ok:
		return 0, nil, refuse(limits.BackupUnknown, "there is no backup %s", shown(q.Backup))
	case len(files) == 0:
		return 0, nil, refuse(limits.NoSystemDisk, "backup %s has no disk", shown(q.Backup))
	case q.Kind != "" && q.Kind != "CBR":
		return 0, nil, refuse(limits.BackupKindWrong, "whole_image_type is %s", shown(q.Kind))
	}
	i.Backup, i.Origin = q.Backup, "server_backup,"+q.Backup
	return s.submit(r, s.newTask(r, jobWholeBackup, i, step{Take: &takeStep{Backup: q.Backup, All: true}}), func(t tx) error {
		all, err := t.images(r.region)
		if err != nil {
			return err
		}
		for _, other := range all {
			if other.Backup == q.Backup && other.Status != ims.StatusDeleted && other.Status != ims.StatusKilled {
				return refuse(limits.BackupUsed, "image %s was made from it", other.ID)
			}
		}
		return nil
	})
}

// registerImage is PUT /v1/cloudimages/{image_id}/upload (reference, 5.1.7): it fills metadata from an object.
func (s *Service) registerImage(r request) (int, any, error) {
	var q struct {
		ImageURL string `json:"image_url"`
	}
	if err := r.decode(&q); err != nil {
		return 0, nil, err
	}
	if _, _, err := limits.SplitImageURL(q.ImageURL); err != nil {
		return 0, nil, err
	}
	i, ok, err := s.state.image(r.vars["image_id"])
	if err != nil {
		return 0, nil, err
	}
	if !ok || i.Owner != r.project || i.Region != r.region || i.Status == ims.StatusDeleted {
		return 0, nil, refuse(limits.ImageIDUnknown, "there is no image %s", shown(r.vars["image_id"]))
	}
	k := s.newTask(r, jobRegister, &i, step{Import: &importStep{URL: q.ImageURL, Kind: limits.SystemImport, ISO: i.DiskFormat == "iso"}})
	return s.submit(r, k, func(t tx) error {
		now, err := t.mustImage(i.ID)
		if err != nil {
			return err
		}
		if !now.Native || now.Status != ims.StatusQueued {
			return refuse(limits.RegisterFailed, "image %s is %s: only new metadata can be registered", i.ID, now.Status)
		}
		busy, err := t.openJobs(func(j job) bool { return j.ImageID == i.ID })
		if err == nil && len(busy) > 0 {
			err = refuse(limits.RegisterFailed, "image %s is being registered", i.ID)
		}
		i = now
		i.Origin, i.Updated = "file,"+q.ImageURL, s.cfg.Now()
		return err
	})
}

// checkKey checks the id of an encryption key, "" for none.
func (s *Service) checkKey(id string) error {
	if keys := s.cfg.Resources.Keys; id != "" && len(keys) > 0 && !slices.Contains(keys, id) {
		return refuse(limits.KeyUnknown, "there is no key %s", shown(id))
	}
	return nil
}

// checkVault checks the id of a backup vault.
func (s *Service) checkVault(id string) error {
	if vaults := s.cfg.Resources.Vaults; id == "" || len(vaults) > 0 && !slices.Contains(vaults, id) {
		return refuse(limits.VaultUnknown, "there is no vault %s", shown(id))
	}
	return nil
}

// checkQuota refuses an image more than a project may have.
func (s *Service) checkQuota(t tx, r request, more int) error {
	if more == 0 {
		return nil
	}
	used, err := t.used(r.project, r.region)
	if err == nil && used+more > s.cfg.Quota {
		err = refuse(limits.QuotaReached, "%d of %d images exist", used, s.cfg.Quota)
	}
	return err
}

// used counts a project's images.
func (t tx) used(project, region string) (n int, err error) {
	all, err := t.images(region)
	for _, i := range all {
		if i.Owner == project && i.Status != ims.StatusDeleted {
			n++
		}
	}
	return n, err
}

// showQuota is GET /v1/cloudimages/quota (reference, 5.4.1).
func (s *Service) showQuota(r request) (int, any, error) {
	type resource struct {
		Type  string `json:"type"`
		Used  int    `json:"used"`
		Quota int    `json:"quota"`
		Min   int    `json:"min"`
		Max   int    `json:"max"`
	}
	var used int
	err := s.state.view(func(t tx) (err error) {
		used, err = t.used(r.project, r.region)
		return err
	})
	return http.StatusOK, map[string]any{"quotas": map[string]any{
		"resources": []resource{{"image", used, s.cfg.Quota, 1, max(defaultQuota, s.cfg.Quota)}},
	}}, err
}
