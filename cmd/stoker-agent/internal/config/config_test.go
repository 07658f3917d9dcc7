package config

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stokerd/stoker/client/clienttest"
)

// place is a directory with an agent's files: ca.pem, agent.pem, agent.key and
// password, and whatever a test adds.
func place(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	clienttest.New(t).Files(dir)
	return dir
}

func read(t *testing.T, dir, text string) (*File, error) {
	t.Helper()
	file := filepath.Join(dir, "stoker-agent.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	return f, f.Err()
}

// least is a configuration that works, and the beginning of others.
const least = `brokers: [broker.example.com:8443]
certificate: agent.pem
key: agent.key
`

const oneUser = "users: {nightly@acme: {password_file: password}}\n"

func TestRead(t *testing.T) {
	dir := place(t)
	f, err := read(t, dir, least+oneUser)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := Config{
		Brokers: []string{"broker.example.com:8443"}, Certificate: filepath.Join(dir, "agent.pem"), Key: filepath.Join(dir, "agent.key"),
		Renew: &yes, Users: map[string]UserConfig{"nightly@acme": {PasswordFile: filepath.Join(dir, "password")}},
		Listen: DefaultListen, Log: LogConfig{Level: "info", Format: "text"},
	}
	if diff := cmp.Diff(want, f.Config); diff != "" {
		t.Error(diff)
	}
}

func TestReadAll(t *testing.T) {
	dir := place(t)
	t.Setenv("HOME", dir)
	t.Setenv("USERPROFILE", dir)
	program := filepath.Join(dir, "told.exe")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := read(t, dir, `
brokers: ["a.example.com:8443", "[::1]:8443"]
ca: ca.pem
certificate: agent.pem
key: agent.key
server_name: broker.example.com
renew: false
users:
  nightly@acme: {password_file: password, grants: [photos, videos]}
  audit@acme: {password_keyring: true, grants: [papers]}
  third@acme: {password_credential: third, grants: [music]}
listen: "[::1]:0"
token_file: run/token
consumers: {restic: {token_file: run/restic, grants: [photos]}, all: {token_file: run/all}}
socket: run/agent.sock
credentials_file: ~/.aws/credentials
profiles: {papers: work}
hook: {command: [told.exe, now], timeout: 1m}
log: {level: debug, format: json}
`)
	if err != nil {
		t.Fatal(err)
	}
	if f.CA != filepath.Join(dir, "ca.pem") || *f.Renew || f.TokenFile != filepath.Join(dir, "run", "token") ||
		f.Socket != filepath.Join(dir, "run", "agent.sock") || f.CredentialsFile != filepath.Join(dir, ".aws", "credentials") {
		t.Errorf("%+v", f.Config)
	}
	if c := f.Consumers["restic"]; c.TokenFile != filepath.Join(dir, "run", "restic") || len(c.Grants) != 1 || len(f.Consumers) != 2 {
		t.Errorf("%+v", f.Consumers)
	}
	if f.Hook.Command[0] != program || f.Hook.Timeout != time.Minute {
		t.Errorf("%+v", f.Hook)
	}
	want := map[string]string{"photos": "stoker-photos", "videos": "stoker-videos", "papers": "work", "music": "stoker-music"}
	if diff := cmp.Diff(want, f.ProfileOf()); diff != "" {
		t.Error(diff)
	}
}

// Every refusal says where and what, and what to do about it.
func TestProblems(t *testing.T) {
	two := "users:\n  a@acme: {password_file: password, grants: [photos]}\n  b@acme: {password_file: password, grants: [%]}\n"
	for name, c := range map[string]struct{ text, says string }{
		"empty":              {"", "the file is empty"},
		"unknown key":        {least + oneUser + "brokrs: []\n", "5:1: brokrs: unknown key; known here: brokers"},
		"unknown inner key":  {least + "users: {a@acme: {password_file: password, pasword: x}}\n", "users.a@acme.pasword: unknown key"},
		"key twice":          {least + oneUser + "key: agent.key\n", "stands twice; the first is in line 3"},
		"wrong type":         {least + oneUser + "renew: perhaps\n", "renew: want true or false"},
		"no brokers":         {"certificate: agent.pem\nkey: agent.key\n" + oneUser, "brokers: missing"},
		"broker, no port":    {strings.Replace(least, ":8443", "", 1) + oneUser, `1:11: brokers[0]: "broker.example.com": want host:port`},
		"broker, port 0":     {strings.Replace(least, ":8443", ":0", 1) + oneUser, "want a port from 1 to 65535"},
		"broker twice":       {strings.Replace(least, "[", "[broker.example.com:8443, ", 1) + oneUser, "brokers[1]: broker.example.com:8443 stands twice"},
		"no certificate":     {"brokers: [b:1]\nkey: agent.key\n" + oneUser, "certificate: missing: name the file"},
		"no key":             {"brokers: [b:1]\ncertificate: agent.pem\n" + oneUser, "key: missing: name the file"},
		"certificate away":   {strings.Replace(least, "agent.pem", "none.pem", 1) + oneUser, "none.pem"},
		"key away":           {strings.Replace(least, "agent.key", "none.key", 1) + oneUser, "none.key"},
		"key of another":     {strings.Replace(least, "agent.key", "other.key", 1) + oneUser, "2:1: certificate: client certificate"},
		"open key":           {strings.Replace(least, "agent.key", "open.key", 1) + oneUser, "chmod 600"},
		"authority away":     {least + oneUser + "ca: none.pem\n", "ca: "},
		"no users":           {least, "users: missing"},
		"malformed login":    {least + "users: {nightly: {password_file: password}}\n", "users.nightly: want login@tenant"},
		"no password":        {least + "users: {a@acme: {grants: [photos]}}\n", "4:9: users.a@acme: missing password: set password_file, password_credential or password_keyring"},
		"two passwords":      {least + "users: {a@acme: {password_file: password, password_keyring: true}}\n", "want one of password_file"},
		"two tenants":        {least + "users:\n  a@acme: {password_file: password, grants: [x]}\n  b@umbrella: {password_file: password, grants: [y]}\n", "6:3: users.b@umbrella: another user is of tenant acme"},
		"several, no grants": {least + "users:\n  a@acme: {password_file: password, grants: [x]}\n  b@acme: {password_file: password}\n", "6:3: users.b@acme: missing grants"},
		"grant's name":       {least + strings.Replace(two, "%", `"A/*"`, 1), "a name has 1 to 63 of a-z"},
		"grant twice":        {least + strings.Replace(two, "%", "photos", 1), "users.b@acme.grants[0]: grant photos is held for a@acme already"},
		"too many grants":    {least + strings.Replace(two, "%", many(101), 1), "101 grants: at most 100"},
		"profiles, no file":  {least + oneUser + "profiles: {photos: p}\n", "profiles: there is no credentials_file"},
		"file, no grants":    {least + oneUser + "credentials_file: c\n", "credentials_file: name the users' grants"},
		"two on one profile": {least + strings.Replace(two, "%", "videos", 1) + "credentials_file: c\nprofiles: {photos: p, videos: p}\n", "8:23: profiles.videos: profile p is grant photos's already"},
		"two on one, mixed":  {least + strings.Replace(two, "%", "videos", 1) + "credentials_file: c\nprofiles: {photos: stoker-videos}\n", "profile stoker-videos is grant photos's already"},
		"profile's name":     {least + strings.Replace(two, "%", "videos", 1) + "credentials_file: c\nprofiles: {photos: 'a]b'}\n", "use letters, digits"},
		"profile of nothing": {least + strings.Replace(two, "%", "videos", 1) + "credentials_file: c\nprofiles: {music: m}\n", "no user holds grant music"},
		"open to all":        {least + oneUser + "listen: 0.0.0.0:1\n", "listen: \"0.0.0.0:1\": credentials are served on loopback alone"},
		"listen, no port":    {least + oneUser + "listen: localhost\n", "want host:port"},
		"listen, bad port":   {least + oneUser + "listen: localhost:x\n", "want a port"},
		"consumer, no token": {least + oneUser + "consumers: {restic: {grants: [photos]}}\n", "consumers.restic: missing token_file"},
		"consumers, one token": {
			least + oneUser + "consumers: {a: {token_file: t}, b: {token_file: ./t}}\n", "t is the token of a already",
		},
		"consumer, main token": {least + oneUser + "token_file: t\nconsumers: {a: {token_file: t}}\n", "t is the token of everybody already"},
		"consumer, no grant":   {least + strings.Replace(two, "%", "videos", 1) + "consumers: {a: {token_file: t, grants: [photos, music]}}\n", "consumers.a.grants[1]: no user holds grant music"},
		"no command":           {least + oneUser + "hook: {timeout: 5s}\n", "hook.command: missing"},
		"command away":         {least + oneUser + "hook: {command: [none]}\n", "hook.command: "},
		"timeout's unit":       {least + oneUser + "hook: {command: [agent.key], timeout: 5}\n", "hook.timeout: want a duration with its unit"},
		"timeout too short":    {least + oneUser + "hook: {command: [agent.key], timeout: 5ms}\n", "hook.timeout: want 1s to 10m0s"},
		"timeout too long":     {least + oneUser + "hook: {command: [agent.key], timeout: 1h}\n", "hook.timeout: want 1s to 10m0s"},
		"imds, open to all":    {least + oneUser + "imds: {listen: 0.0.0.0:1}\n", "imds.listen: \"0.0.0.0:1\": credentials are served on loopback"},
		"imds, which grant":    {least + strings.Replace(two, "%", "videos", 1) + "imds: {listen: 127.0.0.1:0}\n", "imds: missing grant"},
		"imds, no grant":       {least + strings.Replace(two, "%", "videos", 1) + "imds: {listen: 127.0.0.1:0, grant: music}\n", "imds.grant: no user holds grant music"},
		"level":                {least + oneUser + "log: {level: loud}\n", "log.level: want one of debug, info, warn, error"},
		"format":               {least + oneUser + "log: {format: xml}\n", "log.format: want text or json"},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && name == "open key" {
				t.Skip("Windows has no modes")
			}
			dir := place(t)
			key, err := os.ReadFile(filepath.Join(dir, "agent.key"))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "open.key"), key, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(place(t), "agent.key"), filepath.Join(dir, "other.key")); err != nil {
				t.Fatal(err)
			}
			_, err = read(t, dir, c.text)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got  %v\nwant %s", err, c.says)
			}
		})
	}
}

func many(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "g" + strings.Repeat("x", i%60) + strings.Repeat("y", i/60)
	}
	return strings.Join(names, ", ")
}

// All problems are told at once, in the order of their places.
func TestAllProblemsAtOnce(t *testing.T) {
	f, err := read(t, place(t), "brokers: [b]\nlisten: 0.0.0.0:1\nwhat: 1\n")
	if err == nil {
		t.Fatal("it was taken")
	}
	f.Problem("listen", "one more")
	lines := strings.Split(f.Err().Error(), "\n")
	for _, says := range []string{"certificate: missing", "key: missing", "users: missing", ":1:11: brokers[0]", ":2:1: listen: one more", ":3:1: what"} {
		if !strings.Contains(strings.Join(lines, "\n"), says) {
			t.Errorf("it does not say %q:\n%s", says, strings.Join(lines, "\n"))
		}
	}
}

func TestUnreadable(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "none.yaml")); err == nil {
		t.Error("there is none")
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, longestFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(large); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("a large one: %v", err)
	}
}

func TestAbsolute(t *testing.T) {
	if _, err := absolute("~/x", "/d", ""); err == nil {
		t.Error("there is no home")
	}
}

// Whatever is in a file, reading it ends, and says something of what is wrong.
func FuzzRead(f *testing.F) {
	f.Add(least + oneUser)
	f.Add("users: {a@b: {grants: [x, x], password_file: }}")
	f.Add("hook: {command: [[]]}\nprofiles: {x: y}\ncredentials_file: ~/x")
	dir := f.TempDir()
	file := filepath.Join(dir, "stoker-agent.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Read(file)
		if err == nil && got.Err() == nil {
			t.Error("it was taken, without any certificate")
		}
	})
}
