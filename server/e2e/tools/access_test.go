//go:build unix

package tools_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	stokerv1 "github.com/stokerd/stoker/proto/stoker/v1"
)

// step is a command that a tool is run with, under one access.
type step struct {
	access stokerv1.Access
	title  string // the row in the page; empty: none
	line   string
	works  bool
	note   string // in the page
}

// accessLevels is what each tool does under each access. The commands of a tool
// run in this order, on one repository.
var accessLevels = map[string][]step{
	"restic": {
		{access: accessRestore, title: "init", line: resticLine + "init", works: false},
		{access: accessBackup, title: "init", line: resticLine + "init", works: true},
		{access: accessRestore, title: "backup", line: resticLine + "backup {home}/data", works: false},
		{access: accessMaintain, title: "init", line: "{program} -r s3:{s3}/{bucket}/{prefix}another --no-cache init", works: true},
		{access: accessBackup, title: "backup", line: resticLine + "backup {home}/data", works: true},
		{access: accessBackup, title: "", line: resticLine + "backup {home}/data", works: true},
		{access: accessBackup, title: "check --read-data", line: resticLine + "check --read-data", works: true},
		{access: accessRestore, title: "check --read-data", line: resticLine + "--no-lock check --read-data", works: true, note: "with `--no-lock`"},
		{access: accessBackup, title: "restore", line: resticLine + "restore latest --target {home}/by-backup", works: true},
		{access: accessRestore, title: "restore", line: resticLine + "--no-lock restore latest --target {home}/by-restore", works: true, note: "with `--no-lock`"},
		{access: accessRestore, title: "forget", line: resticLine + "forget --keep-last 1 && " + resticGone, works: false},
		// It says that it was refused, and ends with 0: what counts is what is left.
		{access: accessBackup, title: "forget", line: resticLine + "forget --keep-last 1 && " + resticGone, works: false, note: "restic warns, and ends with 0"},
		{access: accessMaintain, title: "forget", line: resticLine + "forget --keep-last 1 && " + resticGone, works: true},
		{access: accessBackup, title: "prune", line: resticLine + "prune --max-unused 0", works: false},
		{access: accessRestore, title: "prune", line: resticLine + "prune --max-unused 0", works: false},
		{access: accessMaintain, title: "prune", line: resticLine + "prune --max-unused 0", works: true},
		{access: accessMaintain, title: "check --read-data", line: resticLine + "check --read-data", works: true},
		{access: accessMaintain, title: "backup", line: resticLine + "backup {home}/data", works: true},
		{access: accessMaintain, title: "restore", line: resticLine + "restore latest --target {home}/by-maintain", works: true},
	},
	"rclone": {
		{access: accessRestore, title: "copy to the bucket", line: "{program} copy {home}/data backup:{bucket}/{prefix}data", works: false},
		{access: accessBackup, title: "copy to the bucket", line: "{program} copy {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessBackup, title: "check", line: "{program} check {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessRestore, title: "check", line: "{program} check {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessBackup, title: "copy from the bucket", line: "{program} copy backup:{bucket}/{prefix}data {home}/by-backup", works: true},
		{access: accessRestore, title: "copy from the bucket", line: "{program} copy backup:{bucket}/{prefix}data {home}/by-restore", works: true},
		{access: accessBackup, title: "copy of a changed file", line: "echo changed > {home}/data/file && {program} copy {home}/data backup:{bucket}/{prefix}data", works: true, note: "the new version hides the old"},
		{access: accessRestore, title: "copy of a changed file", line: "echo again > {home}/data/file && {program} copy {home}/data backup:{bucket}/{prefix}data", works: false},
		{access: accessMaintain, title: "copy of a changed file", line: "{program} copy {home}/data backup:{bucket}/{prefix}data", works: true, note: "the new version hides the old"},
		{access: accessBackup, title: "sync that deletes", line: "rm {home}/data/other && {program} sync {home}/data backup:{bucket}/{prefix}data", works: false},
		{access: accessRestore, title: "sync that deletes", line: "{program} sync {home}/data backup:{bucket}/{prefix}data", works: false},
		{access: accessMaintain, title: "sync that deletes", line: "{program} sync {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessBackup, title: "delete", line: "{program} deletefile backup:{bucket}/{prefix}data/file", works: false},
		{access: accessRestore, title: "delete", line: "{program} deletefile backup:{bucket}/{prefix}data/file", works: false},
		{access: accessMaintain, title: "delete", line: "{program} deletefile backup:{bucket}/{prefix}data/file", works: true},
		{access: accessMaintain, title: "copy to the bucket", line: "{program} copy {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessMaintain, title: "check", line: "{program} check {home}/data backup:{bucket}/{prefix}data", works: true},
		{access: accessMaintain, title: "copy from the bucket", line: "{program} copy backup:{bucket}/{prefix}data {home}/by-maintain", works: true},
	},
	"kopia": {
		{access: accessRestore, title: "repository create", line: "{program} repository create " + kopiaPlace, works: false},
		{access: accessBackup, title: "repository create", line: "{program} repository create " + kopiaElsewhere, works: false, note: "kopia deletes the marker of each session"},
		{access: accessMaintain, title: "repository create", line: "{program} repository create " + kopiaPlace, works: true},
		{access: accessMaintain, title: "snapshot create", line: "{program} snapshot create {home}/data", works: true},
		{access: accessMaintain, title: "", line: "{program} snapshot create {home}/data", works: true},
		{access: accessMaintain, title: "snapshot verify", line: "{program} snapshot verify --verify-files-percent=100", works: true},
		{access: accessMaintain, title: "snapshot restore", line: "{program} snapshot restore {home}/data {home}/by-maintain", works: true},
		{access: accessMaintain, title: "", line: "{program} policy set {home}/data --keep-latest=1 --keep-hourly=0 --keep-daily=0 --keep-weekly=0 --keep-monthly=0 --keep-annual=0", works: true},
		// It fails at the marker of its session; what it wrote before counts.
		{access: accessBackup, title: "snapshot expire", line: kopiaExpire, works: true, note: "the command fails, but the snapshots are gone from the list: kopia deletes them by writing. Their data stays"},
		{access: accessMaintain, title: "", line: "{program} snapshot create {home}/data", works: true},
		{access: accessMaintain, title: "snapshot expire", line: kopiaExpire, works: true},
		{access: accessBackup, title: "maintenance run --full", line: "{program} maintenance run --full --safety=none", works: false},
		{access: accessMaintain, title: "maintenance run --full", line: "{program} maintenance run --full --safety=none", works: true},
		{access: accessBackup, title: "snapshot create", line: "{program} snapshot create {home}/data", works: false, note: "kopia deletes the marker of each session"},
		{access: accessBackup, title: "snapshot verify", line: "{program} snapshot verify --verify-files-percent=100", works: true},
		{access: accessBackup, title: "snapshot restore", line: "{program} snapshot restore {home}/data {home}/by-backup", works: true},
		{access: accessRestore, title: "snapshot create", line: "{program} snapshot create {home}/data", works: false},
		{access: accessRestore, title: "snapshot verify", line: "{program} snapshot verify --verify-files-percent=100", works: true},
		{access: accessRestore, title: "snapshot restore", line: "{program} snapshot restore {home}/data {home}/by-restore", works: true},
	},
}

const (
	resticLine = "{program} -r s3:{s3}/{bucket}/{prefix}repo --no-cache "
	// resticGone is true where only one snapshot is left.
	resticGone = "test $({program} -r s3:{s3}/{bucket}/{prefix}repo --no-cache --no-lock snapshots --json | grep -o short_id | wc -l) = 1"
	// kopiaExpire is true where only one snapshot is left.
	kopiaExpire    = "{program} snapshot expire {home}/data --delete; test $({program} snapshot list {home}/data --json | grep -o rootEntry | wc -l) = 1"
	kopiaPlace     = "s3 --bucket {bucket} --prefix {prefix}repo/ --endpoint {s3_host} --disable-tls --region us-east-1 --access-key= --secret-access-key="
	kopiaElsewhere = "s3 --bucket {bucket} --prefix {prefix}other/ --endpoint {s3_host} --disable-tls --region us-east-1 --access-key= --secret-access-key="
)

var accesses = []stokerv1.Access{accessBackup, accessRestore, accessMaintain}

func accessName(a stokerv1.Access) string {
	return strings.ToLower(strings.TrimPrefix(a.String(), "ACCESS_"))
}

// Each access lets restic, rclone and kopia do what it is for, and no more.
func TestAccessLevels(t *testing.T) {
	t.Parallel()
	y := newYard(t, 15*time.Minute)
	y.minio.Admin(t, "version", "enable", "root/"+bucket)
	var grants []string
	for slug := range accessLevels {
		for _, a := range accesses {
			name := slug + "-" + accessName(a)
			grants = append(grants, name)
			y.under(t, name, slug+"/", a)
		}
	}
	a := y.run(t, grants...)
	t.Run("tool", func(t *testing.T) {
		for slug, steps := range accessLevels {
			t.Run(slug, func(t *testing.T) {
				t.Parallel()
				y.climb(t, a, toolNamed(t, slug), steps)
			})
		}
	})
}

// climb runs a tool's steps.
func (y *yard) climb(t *testing.T, a *agent, k tool, steps []step) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := &cell{tool: k, way: byEndpoint, yard: y, name: k.slug, path: k.program(t), agent: a, home: y.path("homes", k.slug)}
	must(t, os.MkdirAll(filepath.Join(c.home, "data"), 0o700))
	for _, file := range []string{"file", "other"} {
		must(t, os.WriteFile(filepath.Join(c.home, "data", file), []byte("what must not be lost: "+file), 0o600))
	}
	seen := make([]bool, len(steps))
	for i, s := range steps {
		c.grantName = k.slug + "-" + accessName(s.access)
		began := time.Now()
		out, err := c.shell(ctx, t, s.line).CombinedOutput()
		what := fmt.Sprintf("%s as %s: %s (%v): %v\n%s", accessName(s.access), s.title, s.line, time.Since(began).Round(time.Millisecond), err, out)
		if seen[i] = err == nil; seen[i] != s.works {
			t.Errorf("%s", what)
		} else {
			t.Logf("%s", what)
		}
	}
	for _, how := range []string{"by-backup", "by-restore", "by-maintain"} {
		where := filepath.Join(c.home, how)
		if k.slug == "restic" {
			where = filepath.Join(where, c.home, "data")
		}
		got, err := os.ReadFile(filepath.Join(where, "file"))
		if err != nil || !strings.HasPrefix(string(got), "what must not be lost") && how != "by-maintain" {
			t.Errorf("%s: restored %q, %v", how, got, err)
		}
	}
	documented(t, "access "+k.slug, accessTable(steps, seen))
}
