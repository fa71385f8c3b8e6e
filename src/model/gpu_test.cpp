#include "model/gpu.h"

#include <gtest/gtest.h>

namespace gpumod {
namespace {

GpuSlice slice(const std::string& uuid, int instance, int compute, Bytes free, std::vector<GpuProcess> processes = {}) {
  GpuSlice made;
  made.uuid = uuid;
  made.name = "A100 MIG 3g.20gb";
  made.gpu_instance = instance;
  made.compute_instance = compute;
  made.total = Bytes::gib(20);
  made.free = free;
  made.processes = std::move(processes);
  return made;
}

TEST(SliceOf, IsTheDeviceThatListsTheProcessAmongThoseThatShareAnInstance) {
  GpuSample gpu;
  gpu.slices = {slice("MIG-1", 2, 0, Bytes::gib(15)), slice("MIG-2", 2, 1, Bytes::gib(15), {{8, Bytes::gib(4)}})};
  ASSERT_TRUE(slice_of(gpu, 8));
  EXPECT_EQ(slice_of(gpu, 8)->uuid, "MIG-2");
  EXPECT_EQ(slice_of(gpu, 7), nullptr);
}

TEST(Placeable, AGpuInMigModeIsItsInstances) {
  std::vector<GpuSample> gpus{{0, "GPU-a", "RTX 4090", Bytes::gib(24), Bytes::gib(23), {}},
                              {1, "GPU-b", "A100", Bytes::gib(40), Bytes::gib(30), {{7, Bytes::gib(1)}}}};
  EXPECT_EQ(placeable(gpus).size(), 2u);
  gpus[1].mig = true;
  ASSERT_EQ(placeable(gpus).size(), 2u) << "it is not cut up";
  EXPECT_EQ(placeable(gpus)[1].mig, true);

  gpus[1].slices = {slice("MIG-1", 2, 0, Bytes::gib(15), {{7, Bytes::gib(1)}}),
                    slice("MIG-2", 2, 1, Bytes::gib(15), {{7, Bytes::gib(1)}, {8, Bytes::gib(4)}}),
                    slice("MIG-3", 5, 0, Bytes::gib(19))};
  const auto places = placeable(gpus);
  ASSERT_EQ(places.size(), 3u);
  EXPECT_EQ(places[0].index, 0);
  EXPECT_FALSE(places[0].is_instance());
  const auto& shared = places[1];
  EXPECT_EQ(shared.index, 202);
  EXPECT_EQ(shared.uuid, "MIG-1");
  EXPECT_EQ(shared.whole, "GPU-b");
  EXPECT_EQ(shared.free, Bytes::gib(15)) << "its devices share it: it is there once";
  EXPECT_EQ(shared.slices.size(), 2u);
  EXPECT_EQ(shared.processes.size(), 2u) << "who is on both devices holds its memory once";
  EXPECT_EQ(places[2].index, 205);
  EXPECT_EQ(index_of_whole(places[2]), 1);
  EXPECT_EQ(gpu_in_words(places[2].index), "GPU 1 instance 5");
  EXPECT_EQ(gpu_in_words(1), "GPU 1");
  EXPECT_EQ(placeable(places).size(), 3u) << "once is enough";

  EXPECT_TRUE(is_for_anybody(places[0], places));
  EXPECT_FALSE(is_for_anybody(places[1], places)) << "there is a whole GPU";
  EXPECT_TRUE(is_for_anybody(places[1], {places[1], places[2]}));
}

}  // namespace
}  // namespace gpumod
