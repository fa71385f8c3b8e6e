// systemd-logind, asked over the system bus: whether a user's manager outlives the user's last session.
#pragma once

#include <string>

#include "base/result.h"
#include "base/time.h"

namespace gpumod {

/// Lets the manager of this process's user run from boot on, as `loginctl enable-linger` does. `bus`: an address of
/// D-Bus; "" for the system's. Blocks, at most `timeout` for the answer. Errors: environment when there is no bus, no
/// logind, or the policy of this machine does not allow it (no password is asked for).
Result<void> enable_linger(const std::string& bus, Duration timeout);

}  // namespace gpumod
