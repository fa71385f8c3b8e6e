// The test program of this room can be started again as the processes that its tests need: a shim, a supervisor that is
// to be killed, a process with a strange name.
#include <cstdio>

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include "host/local.h"
#include "host/local_testing.h"
#include "host/shim.h"

namespace gpumod::testing {
namespace {

[[noreturn]] void say_ready_and_sleep() {
  std::puts("ready");
  std::fflush(stdout);
  for (;;)
    ::pause();
}

/// A supervisor that starts a service, holds a descriptor that every careless child would inherit, and waits to be
/// killed.
int start_and_wait(const std::filesystem::path& runtime) {
  const int careless = ::open("/etc/passwd", O_RDONLY);
  Loop loop;
  Paths paths;
  paths.home = runtime.parent_path();
  paths.runtime = runtime;
  auto manager = local::open_supervisor(loop, paths, helper({"shim"}));
  if (!manager || careless < 0) return 1;
  UnitSpec spec;
  spec.name = "gpumod-chat.service";
  spec.tag = "chat";
  spec.argv = {"/bin/sh", "-c", "while sleep 0.05; do echo still here; done"};
  const auto outcome = loop.run_until_done((*manager)->start(spec));
  const auto status = loop.run_until_done((*manager)->status(spec.name));
  if (!outcome || !outcome->job.ok) return 2;
  std::printf("started %d\n", status->main_pid);
  std::fflush(stdout);
  for (;;)
    ::pause();
}

}  // namespace
}  // namespace gpumod::testing

int main(int argc, char** argv) {
  const std::string_view role = argc > 1 ? argv[1] : "";
  if (role == "named") {
    ::prctl(PR_SET_NAME, argv[2]);
    gpumod::testing::say_ready_and_sleep();
  }
  if (role == "shim") return gpumod::shim_main(argc, argv);
  if (role == "starter") return gpumod::testing::start_and_wait(argv[2]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
