package planted

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

func TestOwner(t *testing.T) {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[windows.WELL_KNOWN_SID_TYPE]bool{
		windows.WinBuiltinAdministratorsSid: true,
		windows.WinLocalSystemSid:           true,
		windows.WinBuiltinUsersSid:          false,
		windows.WinWorldSid:                 false,
		windows.WinBuiltinGuestsSid:         false,
		windows.WinNetworkServiceSid:        false,
	} {
		sid, err := windows.CreateWellKnownSid(id)
		if err != nil {
			t.Fatal(err)
		}
		if got := trusted(sid, user.User.Sid); got != want {
			t.Errorf("%s: trusted %v", name(sid), got)
		}
	}
	if !trusted(user.User.Sid, user.User.Sid) {
		t.Error("one's own file is not trusted")
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(own); err != nil {
		t.Error(err)
	}
	if err := Check(filepath.Join(filepath.Dir(own), "none")); err == nil {
		t.Error("a file that is not there is trusted")
	}
}
