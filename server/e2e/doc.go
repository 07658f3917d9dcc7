// Package e2e holds the tests of the whole product against real partners: the
// built programs, MinIO as S3 and STS, restic, the AWS CLI, grpcurl. It has no
// code of its own.
package e2e
