#include "control/launch.h"

#include <gtest/gtest.h>

#include "base/folder_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;

struct LaunchTest : ::testing::Test {
  LaunchTest() {
    machine.paths.home = root.path();
    Service chat;
    chat.id = "chat";
    chat.engine = EngineKind::vllm;
    chat.options = VllmOptions();
    chat.port = 7071;
    chat.model.id = "Org/Model";
    chat.binary = root.program("venv/bin/vllm", "");
    catalog.services["chat"] = chat;
    whole.uuid = "GPU-a";
    whole.index = 3;
    slice.index = 201;
    slice.uuid = "MIG-a";
    slice.whole = "GPU-b";
  }

  void install(const std::string& version) {
    fs::remove_all(root / "venv/lib");
    fs::create_directories(root / "venv/lib/python3.12/site-packages" / ("vllm-" + version + ".dist-info"));
  }
  std::string devices(const std::vector<GpuSample>& gpus) {
    const auto unit = unit_spec_for(machine, catalog, "gpumod-chat.service", gpus);
    if (!unit) return unit.error().message;
    const auto found = unit->environment.find("CUDA_VISIBLE_DEVICES");
    return found == unit->environment.end() ? "<unset>" : found->second.reveal();
  }

  TestFolder root;
  Machine machine;
  Catalog catalog;
  GpuSample whole, slice;
};

TEST_F(LaunchTest, AVllmGetsUuidsOnceItReadsThem) {
  EXPECT_EQ(devices({whole}), "3") << "its version is not known";
  install("0.22.1");
  EXPECT_EQ(devices({whole}), "3") << "it would make a number of it";
  install("0.24.0");
  EXPECT_EQ(devices({whole}), "GPU-a");
  install("1.0.0rc1");
  EXPECT_EQ(devices({whole}), "GPU-a");
  whole.uuid.clear();
  EXPECT_EQ(devices({whole}), "3");
  EXPECT_EQ(devices({}), "<unset>");
}

TEST_F(LaunchTest, ASliceHasNoIndex) {
  EXPECT_EQ(devices({slice}), "MIG-a");
  slice.slices.resize(2);
  slice.slices[1].uuid = "MIG-b";
  catalog.services["chat"].gpu.devices = {"MIG-b"};
  EXPECT_EQ(devices({slice}), "MIG-b") << "of those that share its memory the one that is named";
}

TEST_F(LaunchTest, OtherEnginesGetUuids) {
  catalog.services["chat"].engine = EngineKind::command;
  catalog.services["chat"].options = CommandOptions{{(root / "venv/bin/vllm").string()}, {}, {}};
  EXPECT_EQ(devices({whole}), "GPU-a");
}

}  // namespace
}  // namespace gpumod
