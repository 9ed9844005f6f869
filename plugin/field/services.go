package field

import (
	"strconv"

	"github.com/tfdrift/tfdrift-falco/plugin/trail"
)

// The fields of single services, as in Falco's cloudtrail plugin. The s3.cnt.* fields there are absent where they are
// documented to be 0, and count the calls of every service as S3's; here they are what is documented.
var serviceFields = []Field{
	ofRecord("s3.uri", "Object", "the object as s3://BUCKET/KEY.", func(r *trail.Record) string {
		bucket, key := member(r.Request, "bucketName"), member(r.Request, "key")
		if bucket == "" || key == "" {
			return ""
		}
		return "s3://" + bucket + "/" + key
	}).masked(false).with("conversation"),
	at("s3.bucket", "Bucket", "requestParameters.bucketName.", request, "bucketName").with("conversation"),
	at("s3.key", "Key", "requestParameters.key.", request, "key"),
	number("s3.bytes", "Bytes moved", "bytes that went in and out of a bucket.", func(r *trail.Record) (uint64, bool) {
		return transferred(r, "bytesTransferredIn", "bytesTransferredOut")
	}),
	number("s3.bytes.in", "Bytes in", "bytes that went into a bucket.", func(r *trail.Record) (uint64, bool) {
		return transferred(r, "bytesTransferredIn")
	}).with("hidden"),
	number("s3.bytes.out", "Bytes out", "bytes that came out of a bucket.", func(r *trail.Record) (uint64, bool) {
		return transferred(r, "bytesTransferredOut")
	}).with("hidden"),
	s3Count("s3.cnt.get", "Object read", "1 for GetObject, 0 for any other call to S3.",
		func(name string) bool { return name == "GetObject" }),
	s3Count("s3.cnt.put", "Object written", "1 for PutObject, 0 for any other call to S3.",
		func(name string) bool { return name == "PutObject" }),
	s3Count("s3.cnt.other", "Other S3 call", "0 for GetObject and PutObject, 1 for any other call to S3.",
		func(name string) bool { return name != "GetObject" && name != "PutObject" }),
	ofRecord("ec2.name", "Instance name", "the Name tag that RunInstances gives its instances.", instanceName),
	ofRecord("ec2.imageid", "Image", "the first of ec2.imageids, which says more.",
		func(r *trail.Record) string {
			if ids := imageIDs(r); len(ids) > 0 {
				return ids[0]
			}
			return ""
		}),
	{
		Name: "ec2.imageids", Display: "Images", Desc: "the images of the instances that a call started or names; with an index, one of them.", List: true, Index: true,
		get: func(x *Extractor, arg string) (any, bool) {
			if x.decode(); x.record == nil {
				return nil, false
			}
			return pick(imageIDs(x.record), arg)
		},
	},
	at("ecr.repository", "Repository", "requestParameters.repositoryName.", request, "repositoryName"),
	at("ecr.imagetag", "Image tag", "requestParameters.imageTag.", request, "imageTag"),
	at("iam.role", "Role", "requestParameters.roleName.", request, "roleName"),
	at("iam.policy", "Policy", "requestParameters.policyName.", request, "policyName"),
}

// number makes a field of a number that a record may have.
func number(name, display, desc string, get func(r *trail.Record) (uint64, bool)) Field {
	return Field{Name: name, Kind: Uint64, Display: display, Desc: desc, get: func(x *Extractor, _ string) (any, bool) {
		if x.decode(); x.record == nil {
			return nil, false
		}
		return get(x.record)
	}}
}

func s3Count(name, display, desc string, counts func(eventName string) bool) Field {
	return number(name, display, desc, func(r *trail.Record) (uint64, bool) {
		if counts(r.EventName) {
			return 1, r.EventSource == "s3.amazonaws.com"
		}
		return 0, r.EventSource == "s3.amazonaws.com"
	}).with("hidden")
}

// transferred adds up members of additionalEventData, which CloudTrail writes as 33 or as 33.0.
func transferred(r *trail.Record, names ...string) (sum uint64, ok bool) {
	for _, name := range names {
		v, found := trail.Member(r.Additional, name)
		if !found || v.Kind() != '0' {
			continue
		}
		if f, err := strconv.ParseFloat(string(v), 64); err == nil && f >= 0 && f < 1<<63 {
			sum, ok = sum+uint64(f), true
		}
	}
	return sum, ok
}

// instanceName is the Name tag that RunInstances gives the instances.
func instanceName(r *trail.Record) string {
	items, _ := trail.Member(r.Request, "tagSpecificationSet", "items")
	for _, item := range trail.Elements(items) {
		if member(item, "resourceType") != "instance" {
			continue
		}
		tags, _ := trail.Member(item, "tags")
		for _, tag := range trail.Elements(tags) {
			if member(tag, "key") == "Name" {
				return member(tag, "value")
			}
		}
	}
	return ""
}

func imageIDs(r *trail.Record) []string {
	if items, ok := trail.Member(r.Response, "instancesSet", "items"); ok {
		var ids []string
		for _, item := range trail.Elements(items) {
			if id := member(item, "imageId"); id != "" {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for _, path := range [][]string{
		{"imageId"},
		{"DescribeFastLaunchImagesRequest", "ImageId", "content"},
		{"launchSpecification", "imageId"},
	} {
		if id := member(r.Request, path...); id != "" {
			return []string{id}
		}
	}
	return nil
}

// pick is the element at an index, or all without one; a list field with an index has a list of one.
func pick(all []string, index string) (any, bool) {
	if index == "" {
		return all, len(all) > 0
	}
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i >= len(all) {
		return nil, false
	}
	return all[i : i+1], true
}
