//go:build unix

package tools_test

import "time"

// A program that uses one of the SDKs reads one key name a line; see testdata.
const perLine = 2 * time.Second

var minioGoProcess = settings{credentials: inProfile}

// catalog is the rows of the table.
var catalog = []tool{
	{
		slug: "awscli", name: "AWS CLI 2.9.19 (Debian 12)", version: "aws-cli/2.9.19", ask: "{program} --version",
		find:    installed("/usr/bin/aws", "awscli"),
		env:     []string{"AWS_DEFAULT_REGION=us-east-1"},
		shown:   "aws",
		command: command{"{program} --endpoint-url {s3} s3 cp - s3://{bucket}/{prefix}stream", ""},
		portion: 8 * mebibyte, pace: 6 * time.Second, uploads: true,
		window: 15 * time.Minute,
		expect: map[way]expectation{
			byTokenFile: {takesNone, noToken}, byFile: {keeps, readsOnce}, byStatic: {keeps, fixedKeys},
		},
	},
	{
		slug: "boto3", name: "boto3 1.26.27 (Debian 12)", version: "1.26.27", ask: `{program} -c "import boto3; print(boto3.__version__)"`,
		find:    installed("/usr/bin/python3", "python3-boto3"),
		command: command{"{program} " + scripted("worker.py") + " {s3} {bucket}", ""}, pace: perLine,
		window: 15 * time.Minute,
		expect: map[way]expectation{
			byTokenFile: {takesNone, noToken}, byFile: {keeps, readsOnce}, byStatic: {keeps, fixedKeys},
		},
	},
	{
		slug: "restic", name: "restic 0.18.1", version: "restic 0.18.1", ask: "{program} version",
		find:    built("restic"),
		env:     []string{"RESTIC_PASSWORD=of-the-repository"},
		shown:   "restic",
		before:  []command{{"{program} -r s3:{s3}/{bucket}/{prefix}repo{run} init", "--no-cache"}},
		command: command{"{program} -r s3:{s3}/{bucket}/{prefix}repo{run} backup --stdin", "--no-cache --pack-size 4"},
		portion: 5 * mebibyte, pace: 5 * time.Second,
		special: map[way]settings{byProcess: minioGoProcess},
		share:   0.8,
		expect:  map[way]expectation{byStatic: {persists, fixedKeys}},
	},
	{
		slug: "rclone-debian", name: "rclone 1.60.1 (Debian 12)", version: "rclone v1.60.1", ask: "{program} version",
		find:    installed("/usr/bin/rclone", "rclone"),
		env:     rcloneSettings,
		command: command{"{program} rcat backup:{bucket}/{prefix}stream", ""},
		portion: 5 * mebibyte, pace: 6 * time.Second, uploads: true,
		window: 5 * time.Minute,
		expect: map[way]expectation{
			byTokenFile: {takesNone, noToken}, byFile: {persists, readsOnce}, byStatic: {persists, fixedKeys},
		},
	},
	{
		slug: "rclone", name: "rclone 1.76.0", version: "rclone v1.76.0", ask: "{program} version",
		find:    built("rclone"),
		shown:   "rclone",
		env:     rcloneSettings,
		command: command{"{program} rcat backup:{bucket}/{prefix}stream", ""},
		portion: 5 * mebibyte, pace: 6 * time.Second, uploads: true,
		window: 5 * time.Minute,
		expect: map[way]expectation{byFile: {keeps, readsOnce}, byStatic: {keeps, fixedKeys}},
	},
	{
		slug: "kopia", name: "kopia 0.21.1", version: "v0.21.1", ask: "{program} --version",
		find:  built("kopia"),
		env:   []string{"KOPIA_PASSWORD=of-the-repository", "KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_CONFIG_PATH={home}/kopia.config"},
		shown: "kopia",
		before: []command{
			{"{program} repository create s3 --bucket {bucket} --prefix {prefix}repo{run}/ --endpoint {s3_host} --region us-east-1 --access-key= --secret-access-key=", "--disable-tls"},
			{"", "{program} repository set-parameters --max-pack-size-mb=10"},
		},
		command: command{"{program} snapshot create --stdin-file=stream /stream", ""},
		portion: 12 * mebibyte, pace: 6 * time.Second,
		access: accessMaintain,
		share:  0.8,
		expect: map[way]expectation{
			byProcess: {takesNone, noProcess}, byFile: {takesNone, noFile}, byStatic: {keeps, fixedKeys},
		},
	},
	{
		slug: "s3cmd", name: "s3cmd 2.3.0 (Debian 12)", version: "s3cmd version 2.3.0", ask: "{program} --version",
		find:    installed("/usr/bin/s3cmd", "s3cmd"),
		shown:   "s3cmd",
		command: command{"{program} --host={s3_host} --host-bucket={s3_host} put - s3://{bucket}/{prefix}stream", "--no-ssl --multipart-chunk-size-mb=5"},
		portion: 5 * mebibyte, pace: 5 * time.Second,
		expect: map[way]expectation{
			byEndpoint: {takesNone, noEndpoint}, byTokenFile: {takesNone, noEndpoint}, byProcess: {takesNone, noProcess},
			byFile: {keeps, readsOnce}, byExec: {takesNone, noEndpoint}, byStatic: {keeps, fixedKeys},
		},
	},
	{
		slug: "node", name: "@aws-sdk/client-s3 3.1173.0 (Node.js)", version: "3.1173.0",
		ask:     `{program} -p "require('{tools}/aws-sdk-js/node_modules/@aws-sdk/client-s3/package.json').version"`,
		find:    onPath("node", "install node, and "+partners),
		command: command{"{program} " + scripted("worker.mjs") + " {tools}/aws-sdk-js {s3} {bucket}", ""}, pace: perLine,
		window: 5 * time.Minute,
		expect: map[way]expectation{byFile: {keeps, readsOnce}, byStatic: {keeps, fixedKeys}},
	},
	{
		slug: "go", name: "aws-sdk-go-v2 1.47.7",
		find:    testProgram,
		env:     []string{workerVariable + "=1"},
		command: command{"{program} {s3} {bucket}", ""}, pace: perLine,
		window: 5 * time.Minute,
		expect: map[way]expectation{byFile: {keeps, readsOnce}, byStatic: {keeps, fixedKeys}},
	},
}

// rcloneSettings are a remote named "backup", as rclone takes it from its
// environment.
var rcloneSettings = []string{
	"RCLONE_CONFIG=/dev/null", "RCLONE_CONFIG_BACKUP_TYPE=s3", "RCLONE_CONFIG_BACKUP_PROVIDER=Other", "RCLONE_CONFIG_BACKUP_ENV_AUTH=true",
	"RCLONE_CONFIG_BACKUP_ENDPOINT={s3}", "RCLONE_CONFIG_BACKUP_REGION=us-east-1", "RCLONE_CONFIG_BACKUP_NO_CHECK_BUCKET=true",
}
