#include "control/launched.h"

#include <functional>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/folder_testing.h"

namespace gpumod {
namespace {

struct LaunchedTest : ::testing::Test {
  LaunchedTest() {
    paths.runtime = folder / "run";
    auto& service = add("coder", EngineKind::llamacpp);
    service.model.path = "/models/coder.gguf";
    LlamaOptions options;
    options.context_size = 512;
    service.options = options;
    unit.name = "gpumod-coder.service";
    unit.active = ActiveState::active;
    unit.main_pid = ::getpid();
    unit.pids = {::getpid()};
  }
  Service& add(const std::string& id, EngineKind engine) {
    auto& service = catalog.services[id];
    service.id = id;
    service.engine = engine;
    service.port = 7071;
    service.binary = "/opt/bin/server";
    return service;
  }
  Service& coder() { return catalog.services.at("coder"); }
  LlamaOptions& options() { return std::get<LlamaOptions>(coder().options); }
  std::string now() const { return launch_fingerprint(paths, catalog, unit.name).value_or("none"); }
  bool outdated() const { return is_outdated(paths, catalog, unit); }

  TestFolder folder;
  Paths paths;
  Catalog catalog;
  UnitStatus unit;
};

TEST_F(LaunchedTest, WhatRunsIsOutdatedOnceItsFileSaysSomethingElse) {
  EXPECT_FALSE(outdated()) << "what was started before anything was remembered";
  remember_launch(paths, catalog, unit);
  EXPECT_FALSE(outdated());
  options().context_size = 1024;
  EXPECT_TRUE(outdated());
  options().context_size = 512;
  EXPECT_FALSE(outdated()) << "it was changed back";
}

TEST_F(LaunchedTest, AnotherRunIsNotHeldAgainstIt) {
  remember_launch(paths, catalog, unit);
  options().context_size = 1024;
  unit.main_pid = ::getppid();
  EXPECT_FALSE(outdated()) << "somebody else has started that";
  unit.main_pid = 0;
  EXPECT_FALSE(outdated());
  unit.main_pid = ::getpid();
  unit.active = ActiveState::inactive;
  unit.pids.clear();
  EXPECT_FALSE(outdated()) << "it has ended";
}

TEST_F(LaunchedTest, WhatAnEarlierGpumodLaunchedInItsOwnWayIsNotHeldAgainstIt) {
  remember_launch(paths, catalog, unit);
  const auto file = folder / "run/launched/gpumod-coder.service";
  std::string text;
  std::getline(std::ifstream(file), text);
  folder.write("run/launched/gpumod-coder.service", text + "\n0 0123456789abcdef\n");
  EXPECT_FALSE(outdated());
  folder.write("run/launched/gpumod-coder.service", "damaged");
  EXPECT_FALSE(outdated());
}

TEST_F(LaunchedTest, EverythingThatIsLaunchedCounts) {
  std::set<std::string> seen{now()};
  const auto is_new = [&](const char* what) { EXPECT_TRUE(seen.insert(now()).second) << what; };
  options().context_size = 1024;
  is_new("an option");
  coder().model.path = "/models/other.gguf";
  is_new("the model");
  coder().port = 7072;
  is_new("the port");
  coder().environment["API_KEY"] = Secret("a");
  is_new("a variable");
  coder().environment["API_KEY"] = Secret("b");
  is_new("its value");
  coder().extra_args = {"--metrics"};
  is_new("an argument");
  coder().working_directory = "/srv";
  is_new("the working directory");
  coder().binary = "/opt/bin/other";
  is_new("the program");
  coder().gpu.devices = {"1"};
  is_new("the GPU that it asks for");
  catalog.settings.engines[EngineKind::llamacpp].extra_args = {"--log-disable"};
  is_new("what the settings add");
}

TEST_F(LaunchedTest, WhatIsOnlyAboutPlanningDoesNot) {
  const auto before = now();
  coder().vram = Bytes::gib(7);
  coder().startup_timeout = 300s;
  coder().stop_timeout = 3s;
  coder().probe.prompt = "Hello?";
  coder().name = "The coder";
  EXPECT_EQ(now(), before);
}

TEST_F(LaunchedTest, SecretsAreNotWrittenDown) {
  coder().environment["API_KEY"] = Secret("hush-hush");
  remember_launch(paths, catalog, unit);
  std::ifstream file(folder / "run/launched/gpumod-coder.service");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("hush")));
  EXPECT_EQ(std::filesystem::status(folder / "run/launched/gpumod-coder.service").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(LaunchedTest, OfARouterEveryModelCounts) {
  const auto model = [&](const std::string& id, int context) {
    auto& service = add(id, EngineKind::llamacpp);
    service.router = "models";
    LlamaOptions llama;
    llama.models_dir = "/models";
    llama.context_size = context;
    service.options = llama;
  };
  model("a", 512);
  model("b", 1024);
  unit.name = catalog.services.at("a").unit_name();
  const auto before = now();
  EXPECT_NE(before, "none");
  model("b", 2048);
  EXPECT_NE(now(), before) << "its preset says it";
}

TEST_F(LaunchedTest, OfARouterAMemberMoreThatChangesNothingDoesNotCount) {
  const auto model = [&](const std::string& id) {
    auto& service = add(id, EngineKind::llamacpp);
    service.router = "models";
    LlamaOptions llama;
    llama.models_dir = "/models";
    service.options = llama;
  };
  model("a");
  model("b");
  unit.name = catalog.services.at("a").unit_name();
  const auto before = now();
  EXPECT_NE(before, "none");
  model("c");
  EXPECT_EQ(now(), before) << "it would be launched with the very same";
  catalog.broken_services.insert("d");
  EXPECT_EQ(now(), "none") << "nobody knows whether a broken file is of a member";
}

TEST_F(LaunchedTest, OfAUnitOfPeoplesOwnItsFilesCount) {
  paths.home = folder / "home";
  ::unsetenv("XDG_CONFIG_HOME");
  coder().unit = unit.name = "mine.service";
  EXPECT_EQ(now(), "none") << "nobody knows where it is";
  folder.write("home/.config/systemd/user/mine.service", "[Service]\nExecStart=/bin/a\n");
  remember_launch(paths, catalog, unit);
  options().context_size = 1024;
  EXPECT_FALSE(outdated()) << "what its service's file says does not start it";
  folder.write("home/.config/systemd/user/mine.service.d/more.conf", "[Service]\nEnvironment=A=1\n");
  EXPECT_TRUE(outdated());
}

TEST_F(LaunchedTest, WhatNobodyDefinesHasNone) {
  EXPECT_EQ(launch_fingerprint(paths, catalog, "gpumod-nobody.service"), std::nullopt);
}

/// If this fails, launch() makes something else of the same file than it did: raise `recipe` in launched.cpp, so that an
/// upgrade calls nobody outdated, and pin the new ones here.
TEST_F(LaunchedTest, WhatLaunchMakesOfAFileIsPinned) {
  EXPECT_EQ(now(), "1 bb60b0168f3b1ca99d8b13fff7fd7303");
  auto& chat = add("chat", EngineKind::vllm);
  chat.model.id = "Org/M";
  chat.options = VllmOptions{};
  EXPECT_EQ(launch_fingerprint(paths, catalog, "gpumod-chat.service"), "1 79cbf1fed88e79aed9eb24ebb62a6a9c");
  auto& web = add("web", EngineKind::fastapi);
  web.options = FastapiOptions{"app:app", {}};
  EXPECT_EQ(launch_fingerprint(paths, catalog, "gpumod-web.service"), "1 4b6c1cd668960591c91e8ccdd7ab9727");
  auto& tool = add("tool", EngineKind::command);
  tool.options = CommandOptions{{"tool", "--port", "${PORT}"}, {"tool", "stop"}, {}};
  tool.binary.clear();
  EXPECT_EQ(launch_fingerprint(paths, catalog, "gpumod-tool.service"), "1 0f10978befa17ba1981f732c95a4ae0b");
}

}  // namespace
}  // namespace gpumod
