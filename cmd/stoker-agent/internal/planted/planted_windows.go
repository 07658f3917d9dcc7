package planted

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// Check refuses a file unless it and its directory belong to whoever runs this
// process, to the administrators or to the system. Every user may make files and
// directories in %ProgramData%, and what a configuration names as a hook is run as
// whoever reads it.
func Check(file string) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("who we are: %w", err)
	}
	for _, place := range []string{filepath.Dir(file), file} {
		descriptor, err := windows.GetNamedSecurityInfo(place, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
		if err != nil {
			return fmt.Errorf("%s: whose it is: %w", place, err)
		}
		owner, _, err := descriptor.Owner()
		if err != nil {
			return fmt.Errorf("%s: whose it is: %w", place, err)
		}
		if !trusted(owner, user.User.Sid) {
			return fmt.Errorf("%s belongs to %s, who may have put it there for others to run: look at it, then run icacls %q /setowner *S-1-5-32-544 as an administrator, or name it with --config",
				place, name(owner), place)
		}
	}
	return nil
}

// trusted says whether the owner of a file may say what the user runs.
func trusted(owner, user *windows.SID) bool {
	return owner.Equals(user) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid)
}

// name is the account's name, or where it has none its id.
func name(sid *windows.SID) string {
	account, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return sid.String()
	}
	return domain + `\` + account
}
