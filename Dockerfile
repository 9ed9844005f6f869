# The bridge, the plugin and the rules in one image: the bridge runs from it, and beside it the Helm chart's init container
# copies the plugin out of it for Falco. Build with: docker build --build-arg VERSION=$(git describe --tags) .

# The plugin is loaded into another process, so it must not ask for a newer libc than that process has. Built on Bookworm
# (glibc 2.36) it asks for symbols up to glibc 2.34, as Falco's own images, Debian 12, Ubuntu 22.04 and RHEL 9 have them. For an
# older host build this stage on an older base.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/tfdrift-bridge ./bridge \
 && CGO_ENABLED=1 go build -trimpath -ldflags "-s -w" -buildmode=c-shared -o /out/libtfdrift.so ./plugin

# One static program that copies files: the last stage has no shell. Called as cp, busybox is cp.
FROM busybox:1.37-musl AS copy

# Static: certificates, time zones and a user without rights (65532), nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=copy /bin/busybox /bin/cp
COPY --from=build /out/tfdrift-bridge /out/libtfdrift.so /
COPY rules/ /rules/
COPY LICENSE NOTICE /licenses/
ENTRYPOINT ["/tfdrift-bridge"]
CMD ["run"]
