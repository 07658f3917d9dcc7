"""Puts an object for each line of standard input, with one client for all of
them, and ends with the first error."""

import sys

import boto3

client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
for line in sys.stdin:
    client.put_object(Bucket=sys.argv[2], Key=line.strip(), Body=b"data")
