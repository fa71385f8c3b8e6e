// Planted machines: each fact is read from the files that the kernel would show.
#include "host/box.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/folder_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

TEST(Driver, CardsAreCountedWithWhatIsBoundToThem) {
  const TestFolder root;
  const auto device = [&](const char* name, const char* vendor, const char* cls) {
    root.write(fs::path("sys/bus/pci/devices") / name / "vendor", vendor);
    root.write(fs::path("sys/bus/pci/devices") / name / "class", cls);
  };
  device("0000:01:00.0", "0x10de\n", "0x030000\n");
  device("0000:01:00.1", "0x10de\n", "0x040300\n");  // the card's audio
  device("0000:02:00.0", "0x10de\n", "0x030200\n");
  device("0000:00:02.0", "0x8086\n", "0x030000\n");
  fs::create_symlink("../../../../bus/pci/drivers/nouveau", root / "sys/bus/pci/devices/0000:02:00.0/driver");
  const auto facts = driver_facts(root.path());
  EXPECT_EQ(facts.cards, 2);
  EXPECT_EQ(facts.other_driver, "nouveau");
  EXPECT_FALSE(facts.module_loaded);
}

TEST(Driver, TheModuleSaysItsVersionInOneOfTwoPlaces) {
  const TestFolder newer, open;
  newer.write("sys/module/nvidia/version", "580.65.06\n");
  EXPECT_TRUE(driver_facts(newer.path()).module_loaded);
  EXPECT_EQ(driver_facts(newer.path()).module_version, "580.65.06");
  open.write("proc/driver/nvidia/version",
             "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\nGCC version: 12.2\n");
  EXPECT_EQ(driver_facts(open.path()).module_version, "575.57.08");
}

TEST(Driver, WhetherMemorySurvivesASuspendIsAParameterOfTheModule) {
  const TestFolder root;
  EXPECT_EQ(driver_facts(root.path()).keeps_memory, std::nullopt);
  root.write("proc/driver/nvidia/params", "EnableMSI: 1\nPreserveVideoMemoryAllocations: 0\n");
  EXPECT_EQ(driver_facts(root.path()).keeps_memory, false);
  root.write("proc/driver/nvidia/params", "EnableMSI: 0\nPreserveVideoMemoryAllocations: 1\n");
  EXPECT_EQ(driver_facts(root.path()).keeps_memory, true);
}

TEST(Driver, WhoWaitsInTheKernelWithAGpuOpenIsStuck) {
  const TestFolder root;
  const auto process = [&](const char* pid, const char* state, const char* open) {
    root.write(fs::path("proc") / pid / "comm", "a) D\n");
    root.write(fs::path("proc") / pid / "stat", std::string(pid) + " (a) D) " + state + " 1 1 1\n");
    fs::create_directories(root / "proc" / pid / "fd");
    fs::create_symlink(open, root / "proc" / pid / "fd/3");
  };
  process("41", "S", "/dev/nvidia0");
  process("42", "D", "/dev/nvidia0");
  process("43", "D", "/dev/sda");
  EXPECT_THAT(driver_facts(root.path()).stuck, ElementsAre("a) D (pid 42)"));
}

TEST(Driver, NodesThatThisUserMayNotOpenAreNamed) {
  const TestFolder root;
  for (const char* name : {"nvidiactl", "nvidia0", "nvidia-uvm", "nvidia-modeset"})
    fs::permissions(root.write(fs::path("dev") / name, ""), fs::perms::none);
  fs::permissions(root.write("dev/nvidia1", ""), fs::perms(0666));
  for (const auto& folder : {root.path(), root / "dev"})
    fs::permissions(folder, fs::perms(0755));
  const auto user = ::geteuid();  // root may open everything
  ASSERT_EQ(::seteuid(user == 0 ? 65534 : user), 0);
  const auto facts = driver_facts(root.path());
  ASSERT_EQ(::seteuid(user), 0);
  EXPECT_THAT(facts.closed_nodes, ElementsAre("/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"));
}

TEST(Library, IsLoadedToSeeItsVersionAndWhatItHas) {
  const auto there = library_facts("libc.so.6", "getpid");
  EXPECT_TRUE(there.there);
  EXPECT_TRUE(there.has_symbol);
  EXPECT_EQ(there.version, "6");
  EXPECT_FALSE(library_facts("libc.so.6", "cuCheckpointProcessLock").has_symbol);
  EXPECT_FALSE(library_facts("libnothing-of-this-name.so.1", "getpid").there);
}

TEST(Memory, IsReadFromProc) {
  const TestFolder root;
  root.write("proc/meminfo",
             "MemTotal:       65843920 kB\nMemFree: 1 kB\nMemAvailable:   1048576 kB\nSwapTotal:       2048 kB\n");
  root.write("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 2048 0 100\n");
  root.write("proc/sys/vm/swappiness", "133\n");
  root.write("proc/sys/vm/overcommit_memory", "2\n");
  root.write("proc/sys/vm/min_free_kbytes", "67584\n");
  root.write("proc/sys/vm/other", "1\n");
  root.write("proc/pressure/memory", "some avg10=31.25 avg60=2.00 avg300=0.00 total=1\nfull avg10=9.00\n");
  root.write("proc/sys/kernel/yama/ptrace_scope", "1\n");
  root.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n");
  const auto facts = memory_facts(root.path());
  EXPECT_EQ(facts.total, Bytes(65843920LL * 1024));
  EXPECT_EQ(facts.available, Bytes::gib(1));
  EXPECT_EQ(facts.swap, Bytes::mib(2));
  EXPECT_TRUE(facts.swap_is_zram);
  EXPECT_THAT(facts.vm, UnorderedElementsAre(Pair("swappiness", 133), Pair("overcommit_memory", 2),
                                             Pair("min_free_kbytes", 67584)));
  EXPECT_EQ(facts.stalled, 31.25);
  EXPECT_EQ(facts.ptrace_scope, 1);
  EXPECT_EQ(facts.first_own_port, 32768);
  EXPECT_EQ(facts.last_own_port, 60999);
}

TEST(Memory, WhatIsNotThereStaysUnset) {
  const TestFolder root;
  const auto facts = memory_facts(root.path());
  EXPECT_EQ(facts.total, Bytes());
  EXPECT_FALSE(facts.stalled);
  EXPECT_FALSE(facts.ptrace_scope);
  EXPECT_FALSE(facts.swap_is_zram);
  EXPECT_TRUE(facts.vm.empty());
}

TEST(Memory, WhoIsProtectedAndWhoGuards) {
  const TestFolder root;
  const auto process = [&](int pid, const std::string& name, const std::string& score) {
    root.write(fs::path("proc") / std::to_string(pid) / "comm", name + "\n");
    root.write(fs::path("proc") / std::to_string(pid) / "oom_score_adj", score + "\n");
  };
  process(10, "sshd", "-1000");
  process(11, "sshd", "0");  // a session of it
  process(12, "gnome-shell", "200");
  process(13, "earlyoom", "-100");
  process(14, "bash", "-500");
  const auto facts = memory_facts(root.path());
  EXPECT_THAT(facts.least_oom_score, UnorderedElementsAre(Pair("sshd", -1000), Pair("gnome-shell", 200)));
  EXPECT_THAT(facts.guards, ElementsAre("earlyoom"));
  EXPECT_TRUE(is_desktop("gnome-shell"));
  EXPECT_FALSE(is_desktop("sshd"));
}

TEST(Disk, OfAPathThatIsNotThereIsThatOfItsFolder) {
  const TestFolder folder;
  const auto facts = disk_facts(folder / "not/yet", "/");
  EXPECT_EQ(facts.existing, folder.path());
  EXPECT_FALSE(facts.exists);
  EXPECT_GT(facts.free, Bytes());
  EXPECT_TRUE(disk_facts(folder.path(), "/").exists);
}

TEST(Disk, APartitionTurnsWithItsDisk) {
  const TestFolder folder, root;
  struct stat info {};
  ASSERT_EQ(::stat(folder.path().c_str(), &info), 0);
  root.write("sys/devices/sda/queue/rotational", "1\n");
  root.write("sys/devices/sda/sda1/partition", "1\n");
  fs::create_directories(root / "sys/dev/block");
  const auto number = std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
  fs::create_symlink("../../devices/sda/sda1", root / "sys/dev/block" / number);
  EXPECT_EQ(disk_facts(folder.path(), root.path()).rotational, true);
  EXPECT_EQ(disk_facts(folder.path(), root / "elsewhere").rotational, std::nullopt);
}

TEST(Linger, IsAFileOfTheUsersName) {
  const TestFolder root;
  EXPECT_FALSE(lingers("ann", root.path()));
  root.write("var/lib/systemd/linger/ann", "");
  EXPECT_TRUE(lingers("ann", root.path()));
}

TEST(Controllers, AreTheWordsOfTheFile) {
  EXPECT_THAT(controllers_in("cpu memory pids\n"), ElementsAre("cpu", "memory", "pids"));
  EXPECT_TRUE(controllers_in("\n").empty());
}

}  // namespace
}  // namespace gpumod
