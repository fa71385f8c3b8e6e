// For the tests of this room and of the simulation: a temporary directory, and child processes whose output can be read line by line.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "base/time.h"

namespace gpumod::testing {

/// Generous: only a defect reaches it.
constexpr Duration patience = 60s;

/// A child whose standard output we read. Killed and reaped with the object.
class ChildProcess {
 public:
  explicit ChildProcess(std::vector<std::string> argv, std::vector<std::string> extra_environment = {}) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    output_.reset(ends[0]);
    Fd write_end(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 1);
    std::vector<char*> arguments;
    for (auto& argument : argv)
      arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    std::vector<char*> environment;
    for (auto& entry : extra_environment)
      environment.push_back(entry.data());
    for (char** entry = environ; *entry; ++entry)
      environment.push_back(*entry);
    environment.push_back(nullptr);
    const int problem = ::posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr, arguments.data(), environment.data());
    ::posix_spawn_file_actions_destroy(&actions);
    if (problem != 0) std::abort();
  }
  ~ChildProcess() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }
  void wait() {
    if (!std::exchange(reaped_, true)) ::waitpid(pid_, nullptr, 0);
  }
  /// The next line without its end, "" when the child closed its output.
  std::string read_line() {
    std::string line;
    char c = 0;
    while (::read(output_.get(), &c, 1) == 1 && c != '\n')
      line += c;
    return line;
  }

 private:
  pid_t pid_ = -1;
  bool reaped_ = false;
  Fd output_;
};

/// This very test program with a hidden first argument: see local_main_test.cpp.
inline std::vector<std::string> helper(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), std::filesystem::read_symlink("/proc/self/exe").string());
  return arguments;
}

}  // namespace gpumod::testing
