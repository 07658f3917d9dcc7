//go:build unix

package tools_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// workerVariable makes the test program a program that uses aws-sdk-go-v2.
const workerVariable = "TOOLS_TEST_GO_WORKER"

// goWorker is what the scripts in testdata are for other languages: for each
// line of standard input it puts an object of that name, with one client for
// all of them, and ends with the first error.
func goWorker() int {
	ctx := context.Background()
	loaded, err := config.LoadDefaultConfig(ctx, config.WithRegion("us-east-1"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	client := s3.NewFromConfig(loaded, func(o *s3.Options) {
		o.BaseEndpoint, o.UsePathStyle = aws.String(os.Args[1]), true
	})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(os.Args[2]), Key: aws.String(lines.Text()), Body: strings.NewReader("data")})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}
