package ims_test

import (
	"testing"

	"imgferry/ims"
)

// systems are some of the names of the reference (9.5), and of newer lists.
var systems = func() (list []ims.OSVersion) {
	for _, name := range []string{
		"Windows 10 64bit", "Windows Server 2019 Standard 64bit", "Windows Server 2019 Datacenter 64bit", "Windows Server 2012 R2 Standard 64bit",
		"Windows Server 2012 Standard 64bit", "Windows Server 2012 Datacenter 64bit", "Windows Server 2008 R2 WEB 64bit",
		"SUSE Linux Enterprise Server 15 SP1 64bit", "SUSE Linux Enterprise Server 15 64bit", "SUSE Linux Enterprise Server 12 SP5 64bit",
		"SUSE Linux Enterprise Server 11 SP3 32bit", "SUSE Linux Enterprise Server 11 SP3 64bit", "openSUSE 15.0 64bit",
		"Oracle Linux Server release 7.6 64bit", "Red Hat Linux Enterprise 7.6 64bit", "Red Hat Linux Enterprise 6.10 64bit", "Red Hat Linux Enterprise 6.1 64bit",
		"Ubuntu 22.04 server 64bit", "Ubuntu 16.04.6 server 64bit", "Ubuntu 16.04 server 64bit", "Ubuntu 14.04 server 32bit", "Ubuntu 14.04 server 64bit",
		"CentOS 7.0 64bit", "CentOS 7.6 64bit", "CentOS 6.10 64bit", "CentOS 6.10 32bit", "Debian GNU/Linux 10.0.0 64bit", "Debian GNU/Linux 9.3.0 64bit",
		"Debian GNU/Linux 9.0.0 64bit", "EulerOS 2.9 64bit", "openEuler 20.03 64bit", "Other Linux(64 bit)", "Other(32 bit)", "Other(64 bit)",
	} {
		list = append(list, ims.OSVersion{Name: name})
	}
	return list
}()

func TestMatchOS(t *testing.T) {
	for text, want := range map[string]string{
		"ubuntu 22.04 x64":             "Ubuntu 22.04 server 64bit",
		"Ubuntu-22.04-amd64":           "Ubuntu 22.04 server 64bit",
		"ubuntu22":                     "Ubuntu 22.04 server 64bit",
		"ubuntu 16.04":                 "Ubuntu 16.04 server 64bit",
		"ubuntu 14.04":                 "Ubuntu 14.04 server 64bit",
		"ubuntu 14.04 i386":            "Ubuntu 14.04 server 32bit",
		"  ubuntu 14.04 SERVER 32bit ": "Ubuntu 14.04 server 32bit",
		"centos7.6":                    "CentOS 7.6 64bit",
		"CentOS 6.10 32-bit":           "CentOS 6.10 32bit",
		"centos 6.10":                  "CentOS 6.10 64bit",
		"rhel 7.6":                     "Red Hat Linux Enterprise 7.6 64bit",
		"rhel6.1":                      "Red Hat Linux Enterprise 6.1 64bit",
		"redhat 6.10 x86_64":           "Red Hat Linux Enterprise 6.10 64bit",
		"sles 12 sp5":                  "SUSE Linux Enterprise Server 12 SP5 64bit",
		"sles12sp5":                    "SUSE Linux Enterprise Server 12 SP5 64bit",
		"SLES 12 SP 5":                 "SUSE Linux Enterprise Server 12 SP5 64bit",
		"suse 15":                      "SUSE Linux Enterprise Server 15 64bit",
		"opensuse leap 15":             "openSUSE 15.0 64bit",
		"suse 11 sp3":                  "SUSE Linux Enterprise Server 11 SP3 64bit",
		"debian 10":                    "Debian GNU/Linux 10.0.0 64bit",
		"win 2019 datacenter":          "Windows Server 2019 Datacenter 64bit",
		"win2012r2":                    "Windows Server 2012 R2 Standard 64bit",
		"windows server standard 2012": "Windows Server 2012 Standard 64bit",
		"oracle 7":                     "Oracle Linux Server release 7.6 64bit",
		"Other Linux(64 bit)":          "Other Linux(64 bit)",
		"openeuler":                    "openEuler 20.03 64bit",
		"Other (64bit)":                "Other(64 bit)",
	} {
		found, sure := ims.MatchOS(systems, text)
		if len(found) == 0 || found[0].Name != want || !sure {
			t.Errorf("%q: %v, %v; want %q", text, found, sure, want)
		}
	}
	for text, most := range map[string]int{"centos 7": 2, "windows 2019": 2, "debian 9": 2, "windows 2012": 3, "rhel 6": 2, "ubuntu": 5} {
		if found, sure := ims.MatchOS(systems, text); sure || len(found) != most {
			t.Errorf("%q: %v, %v; want %d and doubt", text, found, sure, most)
		}
	}
	for _, text := range []string{"", " ", "!!", "plan9", "ubuntu 22.10", "ubuntu 2", "centos 7.6 arm", "debian 1", "windows 2019 32bit"} {
		if found, sure := ims.MatchOS(systems, text); len(found) > 0 || sure {
			t.Errorf("%q: %v, %v", text, found, sure)
		}
	}
}
