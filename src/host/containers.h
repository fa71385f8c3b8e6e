// Containers, as far as needed to say whose a process in one is. A container's processes have a cgroup of their own
// that carries the container's id; people know its name; the runtime (Docker, Podman, or whatever answers like them)
// knows both, on a Unix socket. Not everybody may ask it: then a container's processes are nobody's that we know.
#pragma once

#include <optional>
#include <string>

#include "base/async.h"

namespace gpumod {

/// The 64 hexadecimal digits of the innermost container of a cgroup path: "…/docker-ID.scope", "/docker/ID",
/// "…/libpod-ID.scope/container", "…/cri-containerd-ID.scope". "" when the path is of no container.
std::string container_of_cgroup(const std::string& control_group);

/// The id of the container of this name ([A-Za-z0-9_.-]+). Asked is $DOCKER_HOST if it is a Unix socket, else the usual
/// sockets of Docker and Podman, system-wide and the user's own, until one knows the container. Nothing when none does
/// within the time.
Task<std::optional<std::string>> container_id(std::string name, Duration timeout);

}  // namespace gpumod
