//go:build unix

package sock

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The line of a listener that could not accept did not have to say what to do about it.
func TestAcceptWarningHasTheRemedy(t *testing.T) {
	for err, remedy := range map[error]string{
		syscall.EMFILE:           "ulimit -n",
		syscall.ENOMEM:           "more memory",
		errors.New("unheard of"): "",
	} {
		var out bytes.Buffer
		new(AcceptWarning).Warn(time.Now(), slog.New(slog.NewTextHandler(&out, nil)), "fake", &net.TCPAddr{}, err)
		line := out.String()
		if has := strings.Contains(line, "remedy="); has != (remedy != "") || !strings.Contains(line, remedy) {
			t.Errorf("%v: the remedy should be %q: %s", err, remedy, line)
		}
	}
}
