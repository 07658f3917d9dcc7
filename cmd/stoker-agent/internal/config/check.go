package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/stokerd/stoker/client"
	"github.com/stokerd/stoker/client/delivery"
	"github.com/stokerd/stoker/cmd/stoker-agent/internal/password"
)

var (
	grantName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	loginName = regexp.MustCompile(`^[!-9;-?A-~]+@[a-z0-9][a-z0-9-]{0,30}$`)
)

// mostGrants is what one user may hold.
const mostGrants = 100

// check reports all that is wrong.
func (f *File) check() {
	f.checkBrokers()
	f.checkCertificate()
	f.checkUsers()
	f.checkProfiles()
	f.checkConsumers()
	f.checkHook()
	f.checkIMDS()
	if err := checkLoopback(f.Listen); err != nil {
		f.Problem("listen", "%v", err)
	}
	if levels := []string{"debug", "info", "warn", "error"}; !slices.Contains(levels, f.Log.Level) {
		f.Problem("log.level", "want one of %s, not %q", strings.Join(levels, ", "), f.Log.Level)
	}
	if f.Log.Format != "text" && f.Log.Format != "json" {
		f.Problem("log.format", "want text or json, not %q", f.Log.Format)
	}
}

func (f *File) checkBrokers() {
	if len(f.Brokers) == 0 {
		f.Problem("brokers", "missing: give the broker's addresses, such as [broker.example.com:8443]")
	}
	for i, b := range f.Brokers {
		at := fmt.Sprintf("brokers[%d]", i)
		if err := checkAddress(b); err != nil {
			f.Problem(at, "%q: %v", b, err)
		}
		if slices.Contains(f.Brokers[:i], b) {
			f.Problem(at, "%s stands twice", b)
		}
	}
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return errors.New("want host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("want a port from 1 to 65535")
	}
	return nil
}

func checkLoopback(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: want host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: want a port from 0 to 65535", address)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q: credentials are served on loopback alone: use 127.0.0.1 or [::1]", address)
	}
	return nil
}

// checkCertificate looks at the files of the certificate, its key and the
// authority.
func (f *File) checkCertificate() {
	missing := false
	if f.Certificate == "" {
		missing = true
		f.Problem("certificate", "missing: name the file of this agent's certificate; stoker-agent enroll makes it")
	}
	if f.Key == "" {
		missing = true
		f.Problem("key", "missing: name the file of the certificate's key")
	} else if err := password.CheckPrivate(f.Key); err != nil {
		missing = true
		f.Problem("key", "%v", err)
	}
	if !missing {
		if _, err := client.ReadCertificate(client.Files{Certificate: f.Certificate, Key: f.Key}); err != nil {
			f.Problem("certificate", "%v", err)
		}
	}
	if f.CA != "" {
		if _, err := os.Stat(f.CA); err != nil {
			f.Problem("ca", "%v", err)
		}
	}
}

// checkUsers looks at the users and at who holds which grant. Whether a password
// is where it should be is the business of whoever opens that place.
func (f *File) checkUsers() {
	if len(f.Users) == 0 {
		f.Problem("users", "missing: give each user as login@tenant with the place of its password")
	}
	holders := make(map[string]string)
	tenant := ""
	for _, login := range f.Logins() {
		user, at := f.Users[login], "users."+login
		_, of, _ := strings.Cut(login, "@")
		if !loginName.MatchString(login) {
			f.Problem(at, "want login@tenant")
		} else if tenant == "" {
			tenant = of
		} else if of != tenant {
			f.Problem(at, "another user is of tenant %s, and a certificate is good for one tenant: run an agent for each", tenant)
		}
		if n := user.places(); n == 0 {
			f.Problem(at, "missing password: set password_file, password_credential or password_keyring")
		} else if n > 1 {
			f.Problem(at, "want one of password_file, password_credential and password_keyring, not %d", n)
		}
		if len(user.Grants) == 0 && len(f.Users) > 1 {
			f.Problem(at, "missing grants: where there are several users, each names its own")
		}
		if len(user.Grants) > mostGrants {
			f.Problem(at+".grants", "%d grants: at most %d", len(user.Grants), mostGrants)
		}
		for i, grant := range user.Grants {
			key := fmt.Sprintf("%s.grants[%d]", at, i)
			if !grantName.MatchString(grant) {
				f.Problem(key, "%q: a name has 1 to 63 of a-z, 0-9 and -", grant)
			}
			if holder, held := holders[grant]; held {
				f.Problem(key, "grant %s is held for %s already", grant, holder)
			}
			holders[grant] = login
		}
	}
}

// places is how many places are given for the password.
func (u UserConfig) places() int {
	n := 0
	for _, given := range []bool{u.PasswordFile != "", u.PasswordCredential != "", u.PasswordKeyring} {
		if given {
			n++
		}
	}
	return n
}

// Held gives the names of all grants that users name.
func (f *File) Held() []string {
	var held []string
	for _, login := range f.Logins() {
		held = append(held, f.Users[login].Grants...)
	}
	return held
}

// ProfileOf gives the profile of each grant; none without a credentials file.
func (f *File) ProfileOf() map[string]string {
	profiles := make(map[string]string)
	if f.CredentialsFile == "" {
		return profiles
	}
	for _, grant := range f.Held() {
		profiles[grant] = "stoker-" + grant
	}
	for grant, profile := range f.Profiles {
		profiles[grant] = profile
	}
	return profiles
}

// checkProfiles refuses profiles that cannot be, or that two grants want.
func (f *File) checkProfiles() {
	if f.CredentialsFile == "" {
		if len(f.Profiles) > 0 {
			f.Problem("profiles", "there is no credentials_file for them")
		}
		return
	}
	if len(f.Held()) == 0 {
		f.Problem("credentials_file", "name the users' grants: each has its profile")
		return
	}
	profiles := f.ProfileOf()
	owners := make(map[string]string)
	grants := make([]string, 0, len(profiles))
	for grant := range profiles {
		grants = append(grants, grant)
	}
	slices.Sort(grants)
	for _, grant := range grants {
		profile, at := profiles[grant], "profiles."+grant
		if !slices.Contains(f.Held(), grant) {
			f.Problem(at, "no user holds grant %s", grant)
			continue
		}
		if _, err := delivery.NewSharedFile(f.CredentialsFile, map[string]string{grant: profile}); err != nil {
			f.Problem(at, "%v", err)
		}
		if other, taken := owners[profile]; taken {
			f.Problem(at, "profile %s is grant %s's already: give each a profile of its own", profile, other)
		}
		owners[profile] = grant
	}
}

// checkConsumers refuses consumers without a token of their own, and grants that
// nobody holds.
func (f *File) checkConsumers() {
	owners := map[string]string{f.TokenFile: "everybody"}
	for _, name := range slices.Sorted(maps.Keys(f.Consumers)) {
		consumer, at := f.Consumers[name], "consumers."+name
		if consumer.TokenFile == "" {
			f.Problem(at, "missing token_file: name the file of its token")
		} else if owner, taken := owners[consumer.TokenFile]; taken {
			f.Problem(at+".token_file", "%s is the token of %s already: give each its own", consumer.TokenFile, owner)
		} else {
			owners[consumer.TokenFile] = name
		}
		for i, grant := range consumer.Grants {
			if held := f.Held(); len(held) > 0 && !slices.Contains(held, grant) {
				f.Problem(fmt.Sprintf("%s.grants[%d]", at, i), "no user holds grant %s", grant)
			}
		}
	}
}

func (f *File) checkHook() {
	if f.Hook == nil {
		return
	}
	switch {
	case len(f.Hook.Command) == 0 || f.Hook.Command[0] == "":
		f.Problem("hook.command", "missing: give the program and its arguments as a list")
	default:
		if _, err := exec.LookPath(f.Hook.Command[0]); err != nil {
			f.Problem("hook.command", "%v", err)
		}
	}
	if f.Hook.Timeout < leastTimeout || f.Hook.Timeout > mostTimeout {
		f.Problem("hook.timeout", "want %s to %s, not %s", leastTimeout, mostTimeout, f.Hook.Timeout)
	}
}

func (f *File) checkIMDS() {
	if f.IMDS == nil {
		return
	}
	if err := checkLoopback(f.IMDS.Listen); err != nil {
		f.Problem("imds.listen", "%v", err)
	}
	held := f.Held()
	switch {
	case f.IMDS.Grant == "" && len(held) > 1:
		f.Problem("imds", "missing grant: there are several, and it serves one")
	case f.IMDS.Grant != "" && len(held) > 0 && !slices.Contains(held, f.IMDS.Grant):
		f.Problem("imds.grant", "no user holds grant %s", f.IMDS.Grant)
	}
}
