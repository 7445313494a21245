package imageservice

import (
	"net/http"
	"strings"

	"imgferry/limits"
)

// osVersions are the operating systems there are, by platform (reference, 9.5, table 9-1, and the example of
// 5.1.9), and some that came later.
var osVersions = []struct {
	platform, kind string
	versions       []string
}{
	{"Windows", "Windows", []string{
		"Windows Server 2022 Standard 64bit", "Windows Server 2022 Datacenter 64bit", "Windows 10 64bit", "Windows Server 2019 Standard 64bit", "Windows Server 2019 Datacenter 64bit",
		"Windows Server 2016 Standard 64bit", "Windows Server 2016 Datacenter 64bit",
		"Windows Server 2012 R2 Standard 64bit", "Windows Server 2012 Essentials R2 64bit",
		"Windows Server 2012 R2 Datacenter 64bit", "Windows Server 2012 Datacenter 64bit",
		"Windows Server 2012 Standard 64bit", "Windows Server 2008 R2 WEB 64bit", "Windows Server 2008 R2 Standard 64bit",
		"Windows Server 2008 R2 Enterprise 64bit", "Windows Server 2008 R2 Datacenter 64bit",
	}},
	{"SUSE", "Linux", []string{
		"SUSE Linux Enterprise Server 15 SP1 64bit", "SUSE Linux Enterprise Server 15 64bit",
		"SUSE Linux Enterprise Server 12 SP5 64bit", "SUSE Linux Enterprise Server 12 SP4 64bit",
		"SUSE Linux Enterprise Server 12 SP3 64bit", "SUSE Linux Enterprise Server 12 SP2 64bit",
		"SUSE Linux Enterprise Server 12 SP1 64bit", "SUSE Linux Enterprise Server 11 SP4 64bit",
		"SUSE Linux Enterprise Server 11 SP3 64bit", "SUSE Linux Enterprise Server 11 SP3 32bit",
	}},
	{"Oracle Linux", "Linux", []string{
		"Oracle Linux Server release 7.6 64bit", "Oracle Linux Server release 7.5 64bit",
		"Oracle Linux Server release 7.4 64bit", "Oracle Linux Server release 7.3 64bit",
		"Oracle Linux Server release 7.2 64bit", "Oracle Linux Server release 7.1 64bit",
		"Oracle Linux Server release 7.0 64bit", "Oracle Linux Server release 6.10 64bit",
		"Oracle Linux Server release 6.9 64bit", "Oracle Linux Server release 6.8 64bit",
		"Oracle Linux Server release 6.7 64bit", "Oracle Linux Server release 6.5 64bit",
	}},
	{"Red Hat", "Linux", []string{
		"Red Hat Linux Enterprise 8.0 64bit", "Red Hat Linux Enterprise 7.6 64bit", "Red Hat Linux Enterprise 7.5 64bit",
		"Red Hat Linux Enterprise 7.4 64bit", "Red Hat Linux Enterprise 7.3 64bit", "Red Hat Linux Enterprise 7.2 64bit",
		"Red Hat Linux Enterprise 7.1 64bit", "Red Hat Linux Enterprise 7.0 64bit", "Red Hat Linux Enterprise 6.10 64bit",
		"Red Hat Linux Enterprise 6.9 64bit", "Red Hat Linux Enterprise 6.8 64bit", "Red Hat Linux Enterprise 6.7 64bit",
		"Red Hat Linux Enterprise 6.6 64bit", "Red Hat Linux Enterprise 6.6 32bit", "Red Hat Linux Enterprise 6.5 64bit",
		"Red Hat Linux Enterprise 6.4 64bit", "Red Hat Linux Enterprise 6.4 32bit",
	}},
	{"Ubuntu", "Linux", []string{
		"Ubuntu 22.04 server 64bit", "Ubuntu 20.04 server 64bit", "Ubuntu 19.04 server 64bit", "Ubuntu 18.04.2 server 64bit", "Ubuntu 18.04.1 server 64bit",
		"Ubuntu 18.04 server 64bit", "Ubuntu 16.04.6 server 64bit", "Ubuntu 16.04.5 server 64bit",
		"Ubuntu 16.04.4 server 64bit", "Ubuntu 16.04.3 server 64bit", "Ubuntu 16.04.2 server 64bit",
		"Ubuntu 16.04 server 64bit", "Ubuntu 14.04.5 server 64bit", "Ubuntu 14.04.4 server 64bit",
		"Ubuntu 14.04.4 server 32bit", "Ubuntu 14.04.3 server 64bit", "Ubuntu 14.04.3 server 32bit",
		"Ubuntu 14.04.1 server 64bit", "Ubuntu 14.04.1 server 32bit", "Ubuntu 14.04 server 64bit",
		"Ubuntu 14.04 server 32bit",
	}},
	{"openSUSE", "Linux", []string{
		"openSUSE 42.3 64bit", "openSUSE 42.2 64bit", "openSUSE 42.1 64bit", "openSUSE 15.0 64bit", "openSUSE 13.2 64bit",
		"openSUSE 11.3 64bit",
	}},
	{"CentOS", "Linux", []string{
		"CentOS 8.0 64bit", "CentOS 7.9 64bit", "CentOS 7.7 64bit", "CentOS 7.6 64bit", "CentOS 7.5 64bit", "CentOS 7.4 64bit",
		"CentOS 7.3 64bit", "CentOS 7.2 64bit", "CentOS 7.1 64bit", "CentOS 7.0 64bit", "CentOS 7.0 32bit",
		"CentOS 6.10 64bit", "CentOS 6.10 32bit", "CentOS 6.9 64bit", "CentOS 6.8 64bit", "CentOS 6.7 64bit",
		"CentOS 6.7 32bit", "CentOS 6.6 64bit", "CentOS 6.6 32bit", "CentOS 6.5 64bit", "CentOS 6.5 32bit",
		"CentOS 6.4 64bit", "CentOS 6.4 32bit", "CentOS 6.3 64bit", "CentOS 6.3 32bit",
	}},
	{"Debian", "Linux", []string{
		"Debian GNU/Linux 12.0.0 64bit", "Debian GNU/Linux 11.1.0 64bit", "Debian GNU/Linux 10.0.0 64bit", "Debian GNU/Linux 9.3.0 64bit", "Debian GNU/Linux 9.0.0 64bit",
		"Debian GNU/Linux 8.10.0 64bit", "Debian GNU/Linux 8.8.0 64bit", "Debian GNU/Linux 8.7.0 64bit",
		"Debian GNU/Linux 8.6.0 64bit", "Debian GNU/Linux 8.5.0 64bit", "Debian GNU/Linux 8.4.0 64bit",
		"Debian GNU/Linux 8.2.0 64bit", "Debian GNU/Linux 8.1.0 64bit",
	}},
	{"Fedora", "Linux", []string{
		"Fedora 30 64bit", "Fedora 29 64bit", "Fedora 28 64bit", "Fedora 27 64bit", "Fedora 26 64bit", "Fedora 25 64bit",
		"Fedora 24 64bit", "Fedora 23 64bit", "Fedora 22 64bit",
	}},
	{"EulerOS", "Linux", []string{
		"EulerOS 2.9 64bit", "EulerOS 2.5 64bit", "EulerOS 2.3 64bit", "EulerOS 2.2 64bit", "EulerOS 2.1 64bit",
	}},
	{"openEuler", "Linux", []string{
		"openEuler 22.03 64bit", "openEuler 20.03 64bit",
	}},
	{"NeoKylin", "Linux", []string{
		"NeoKylin 7.4 64bit", "NeoKylin Server release 5.0 U2 64bit",
		"NeoKylin Linux Advanced Server release 7.0 U5 64bit",
	}},
	{"Other", "Linux", []string{"Other Linux(64 bit)", "Other Linux(32 bit)", "Other(64 bit)", "Other(32 bit)"}},
}

type osVersion struct {
	Platform string `json:"platform"`
	Key      string `json:"os_version_key"`
	Version  string `json:"os_version"`
	Bit      int    `json:"os_bit"`
	Type     string `json:"os_type"`
}

type osPlatform struct {
	Platform string      `json:"platform"`
	Versions []osVersion `json:"version_list"`
}

// checkOSVersion refuses what the service can't take for the name of a system (IMG.0056). The list changes by
// region and with time, and no sandbox may refuse what a cloud takes: another version of a known platform
// passes if it is written like the names of the list.
func checkOSVersion(name string) error {
	known := name == "" || strings.HasPrefix(name, "Other") ||
		systemOf(image{OSVersion: name}).platform != "Other" && (strings.HasSuffix(name, "64bit") || strings.HasSuffix(name, "32bit"))
	if !known {
		return refuse(limits.OSVersionInvalid, "%s is no name such as %s: see GET /v1/cloudimages/os_version", shown(name), shown(osVersions[0].versions[0]))
	}
	return nil
}

// listOSVersions is GET /v1/cloudimages/os_version (reference, 5.1.9). A tag keeps those that the kind of
// server or boot mode can run.
func (s *Service) listOSVersions(r request) (int, any, error) {
	tags := r.URL.Query()["tag"]
	for _, tag := range tags {
		switch tag {
		case "", "bms", "uefi", "kvm", "arm", "x86":
		default:
			return 0, nil, refuse(limits.URLFormat, "the tag %s is neither bms nor uefi", shown(tag))
		}
	}
	all := []osPlatform{}
	for _, p := range osVersions {
		list := osPlatform{Platform: p.platform, Versions: []osVersion{}}
		for _, v := range p.versions {
			os := systemOf(image{OSVersion: v})
			entry := osVersion{p.platform, v, v, 64, p.kind}
			if os.bit == "32" {
				entry.Bit = 32
			}
			if tagged(entry, tags) {
				list.Versions = append(list.Versions, entry)
			}
		}
		if len(list.Versions) > 0 {
			all = append(all, list)
		}
	}
	return http.StatusOK, all, nil
}

// tagged reports whether a system fits all tags: neither UEFI nor bare metal boots one of 32 bits.
func tagged(v osVersion, tags []string) bool {
	for _, tag := range tags {
		if (tag == "uefi" || tag == "bms" || tag == "arm") && v.Bit == 32 || tag == "arm" && v.Type == "Windows" {
			return false
		}
	}
	return true
}
