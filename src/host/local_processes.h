// Which processes belong to a unit of the local supervisor, and how to signal them without ever hitting a stranger.
//
// A service's processes are the descendants of its shim: the shim is their subreaper, so neither a new session nor a
// double fork gets them out. When the shim itself was killed, its orphans are known by their environment. Between
// listing a pid and signalling it the process may end and the number may go to somebody else; so a pidfd is opened
// first, then the reason why it is ours is checked again, then the pidfd is signalled.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/fd.h"
#include "host/local_state.h"

namespace gpumod::local {

/// Sends through a pidfd. False when the process has ended.
bool send_signal(const Fd& pidfd, int signal);
bool has_ended(const Fd& pidfd);

/// The start time of a living process; 0 when it has ended (a zombie has).
std::uint64_t start_ticks_of(pid_t pid);

/// A pidfd for exactly that process, an invalid one when it has ended.
Fd open_process(const ProcessKey& key);
bool is_alive(const ProcessKey& key);

/// Descendants that have not ended.
std::vector<pid_t> live_descendants(pid_t root);
/// True when the signal was sent: the pid was a descendant of `root` at that moment.
bool signal_descendant(pid_t root, pid_t pid, int signal);

/// Living processes of this user that carry GPUMOD_LOCAL=`home`, by their GPUMOD_SERVICE; this process is left out.
std::map<std::string, std::vector<pid_t>> marked_processes(const std::string& home);
/// A pidfd for the process if it (still) carries both marks, an invalid one otherwise.
Fd open_marked_process(pid_t pid, const std::string& home, const std::string& tag);

}  // namespace gpumod::local
