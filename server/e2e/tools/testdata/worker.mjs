// Puts an object for each line of standard input, with one client for all of
// them, and ends with the first error.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";

const [modules, endpoint, Bucket] = process.argv.slice(2);
const require = createRequire(pathToFileURL(modules + "/"));
const { S3Client, PutObjectCommand } = require("@aws-sdk/client-s3");

const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true });
for await (const Key of createInterface({ input: process.stdin })) {
  await client.send(new PutObjectCommand({ Bucket, Key, Body: "data" }));
}
