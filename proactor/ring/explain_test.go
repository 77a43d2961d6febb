//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package ring

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// Every failure of setup names its cause and what to change.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		op, sysctl     string
		errno          syscall.Errno
		reason, remedy string
	}{
		{"io_uring_setup", "", syscall.ENOSYS, "no io_uring", "CONFIG_IO_URING=y"},
		{"io_uring_setup", "2\n", syscall.EPERM, "io_uring_disabled=2", "sysctl kernel.io_uring_disabled=0"},
		{"io_uring_setup", "1\n", syscall.EPERM, "io_uring_disabled=1", "kernel.io_uring_group"},
		{"io_uring_setup", "0\n", syscall.EPERM, "seccomp", "seccomp profile"},
		{"io_uring_setup", "", syscall.EPERM, "seccomp", "seccomp profile"},
		{"io_uring_enter", "0\n", syscall.EPERM, "io_uring_setup is allowed, but io_uring_enter", "allow io_uring_enter"},
		{"io_uring_register", "2\n", syscall.EPERM, "io_uring_setup is allowed, but io_uring_register", "allow io_uring_register"},
		{"io_uring_register", "1\n", syscall.EPERM, "io_uring_setup is allowed, but io_uring_register", "allow io_uring_register"},
		{"io_uring_register", "", syscall.ENOSYS, "io_uring_setup is allowed, but io_uring_register", "allow io_uring_register"},
		{"io_uring_setup", "", syscall.EACCES, "security policy", "LSM"},
		{"io_uring_setup", "", syscall.EINVAL, "too old", "Linux 6.1"},
		{"io_uring_register", "", syscall.EINVAL, "too old", "Linux 6.1"},
		{"io_uring_enter", "", syscall.EOPNOTSUPP, "too old", "Linux 6.1"},
		{"io_uring_setup", "", syscall.ENOMEM, "memlock", "ulimit -l"},
		{"io_uring_register", "", syscall.ENOMEM, "memlock", "LimitMEMLOCK"},
		{"io_uring_setup", "", syscall.EMFILE, "process is out of descriptors", "ulimit -n` (LimitNOFILE= in systemd), or use fewer loops"},
		{"io_uring_setup", "", syscall.ENFILE, "system is out of descriptors", "fs.file-max, or use fewer loops"},
		{"io_uring_enter", "", syscall.ETIME, "in time", "report"},
		{"io_uring_enter", "", syscall.EIO, "input/output error", "log"},
	} {
		err := explain(c.op, c.errno, c.sysctl)
		if !strings.Contains(err.Reason, c.reason) || !strings.Contains(err.Remedy, c.remedy) {
			t.Errorf("%s %v sysctl %q: %v", c.op, c.errno, c.sysctl, err)
		}
		wanting := c.errno == syscall.EMFILE || c.errno == syscall.ENFILE // and epoll takes as many
		if strings.HasSuffix(err.Remedy, "or use the epoll engine") == wanting {
			t.Errorf("%s %v: what the remedy says of the other engine is wrong: %q", c.op, c.errno, err.Remedy)
		}
		if err.Error() != c.op+": "+err.Reason+"; "+err.Remedy {
			t.Errorf("text: %q", err.Error())
		}
		if !errors.Is(err, c.errno) {
			t.Errorf("%v is not %v", err, c.errno)
		}
	}
}

func TestCapsString(t *testing.T) {
	for caps, want := range map[Caps]string{
		0:                                "none",
		CapMultishot:                     "multishot",
		CapMultishot | CapIncremental:    "multishot,incremental",
		CapDeferTaskrun | CapIncremental: "defer-taskrun,incremental",
	} {
		if got := caps.String(); got != want {
			t.Errorf("%d: %q, want %q", caps, got, want)
		}
	}
	if !(CapMultishot | CapIncremental).Has(CapIncremental) || CapMultishot.Has(CapMultishot|CapIncremental) {
		t.Error("Has")
	}
}
