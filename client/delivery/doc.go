// Package delivery hands the credentials of a client.Source to tools that know
// nothing of Stoker, in the ways that such tools take credentials:
//
//   - [Endpoint], the container-credentials endpoint on loopback. Tools ask it
//     again before a credential ends, so they refresh by themselves: the AWS
//     CLI and SDKs, boto3, restic, kopia, rclone (env_auth), and whatever uses
//     minio-go. The default, and the best there is.
//   - [IMDS], the metadata service of an EC2 instance, version 2. Tools ask it
//     again like the endpoint, but it cannot tell the machine's users apart. The
//     AWS CLI and SDKs and boto3 take its address from a variable; restic and
//     kopia know only the real one's, which is not loopback.
//   - [WriteProcess], the answer of a credential_process. The AWS CLI and SDKs
//     call it again before its Expiration; minio-go reads it from the
//     credentials file only.
//   - [SharedFile], profiles in the shared-credentials file. The format knows
//     no expiry: restic reads it on each request, most other long-running
//     processes keep the keys that they read first.
//   - [StaticVariables], keys in the environment of a child. They never
//     refresh; for tools that know nothing better, such as s3cmd.
//   - [Exec] starts a child with the endpoint's variables, or static ones, in
//     its environment.
//   - [Local] serves stoker-agent's own subcommands, on a Unix socket or a
//     Windows named pipe.
//
// It owns listeners, files and children. It never talks to a broker and decides
// nothing about a credential: what its [Supply] does not hand out, it does not
// hand out either.
package delivery
