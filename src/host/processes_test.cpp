#include "host/processes.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "host/local_testing.h"

namespace gpumod {
namespace {

using testing::ChildProcess;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::helper;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

TEST(ProcessInfo, DescribesThisProcess) {
  const auto info = process_info(::getpid());
  ASSERT_TRUE(info) << info.error().message;
  EXPECT_EQ(info->pid, ::getpid());
  EXPECT_EQ(info->parent, ::getppid());
  EXPECT_GT(info->start_ticks, 0u);
  EXPECT_TRUE(info->alive());
  EXPECT_FALSE(info->user.empty());
}

TEST(ProcessInfo, SurvivesNamesMadeToFoolAParser) {
  for (const std::string name : {") (", "a) S 1 1 1", "two\nlines)", ")))", "((", " "}) {
    ChildProcess child(helper({"named", name}));
    ASSERT_EQ(child.read_line(), "ready");
    const auto info = process_info(child.pid());
    ASSERT_TRUE(info) << name;
    EXPECT_EQ(info->command, name);
    EXPECT_EQ(info->parent, ::getpid()) << name;
    EXPECT_THAT(std::string("SR"), Contains(info->state)) << name;
  }
}

TEST(ProcessInfo, AnEndedProcessIsNotFound) {
  ChildProcess child({"/bin/true"});
  child.wait();
  EXPECT_EQ(process_info(child.pid()).error().code, ErrorCode::not_found);
  EXPECT_EQ(open_pidfd(child.pid()).error().code, ErrorCode::not_found);
}

TEST(ProcessInfo, AZombieIsNotAlive) {
  ChildProcess child({"/bin/true"});
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child.pid()), &ended, WEXITED | WNOWAIT), 0);
  const auto info = process_info(child.pid());
  ASSERT_TRUE(info);
  EXPECT_FALSE(info->alive());
}

TEST(Pidfd, TellsTheEndAndTheDeadlineApart) {
  Loop loop;
  ChildProcess child({"/bin/sleep", "1000"});
  auto pidfd = open_pidfd(child.pid());
  ASSERT_TRUE(pidfd);
  const auto too_early = loop.run_until_done(wait_process_end(*pidfd, now() + 20ms));
  ASSERT_TRUE(too_early);
  EXPECT_FALSE(*too_early);
  ::kill(child.pid(), SIGKILL);
  const auto ended = loop.run_until_done(wait_process_end(*pidfd, now() + testing::patience));
  ASSERT_TRUE(ended);
  EXPECT_TRUE(*ended);
}

TEST(Environment, GivesOneVariable) {
  ChildProcess child(helper({"named", "x"}), {"GPUMOD_TEST_A=one=1", "GPUMOD_TEST_AB=", "GPUMOD_TEST=no"});
  ASSERT_EQ(child.read_line(), "ready");
  EXPECT_EQ(environment_of(child.pid(), "GPUMOD_TEST_A"), "one=1");
  EXPECT_EQ(environment_of(child.pid(), "GPUMOD_TEST_AB"), "");
  EXPECT_EQ(environment_of(child.pid(), "GPUMOD_TEST_ABC"), std::nullopt);
  EXPECT_EQ(environment_of(child.pid(), "PUMOD_TEST"), std::nullopt);
}

TEST(Descendants, AreFoundThroughSessionsAndGenerations) {
  ChildProcess child({"/bin/sh", "-c", "setsid sh -c 'sleep 1000 & echo $! $$; wait' & echo $!; wait"});
  const pid_t inner = std::stoi(child.read_line());
  const auto pair = child.read_line();
  const pid_t grandchild = std::stoi(pair);
  EXPECT_THAT(descendants_of(::getpid()), Contains(child.pid()));
  const auto found = descendants_of(child.pid());
  EXPECT_THAT(found, Contains(inner));
  EXPECT_THAT(found, Contains(grandchild));
  EXPECT_THAT(found, Not(Contains(child.pid())));
  for (const pid_t pid : found)
    ::kill(pid, SIGKILL);
}

TEST(Descendants, OfAnEndedProcessAreNone) {
  ChildProcess child({"/bin/true"});
  child.wait();
  EXPECT_THAT(descendants_of(child.pid()), IsEmpty());
}

/// Listens on a free port and says which.
template <typename Address>
Fd listen_on(Address address, std::uint16_t& port, int family) {
  Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  socklen_t size = sizeof address;
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(fd.get(), 1) != 0)
    return {};
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  if constexpr (std::is_same_v<Address, sockaddr_in6>)
    port = ntohs(address.sin6_port);
  else
    port = ntohs(address.sin_port);
  return fd;
}

TEST(Listeners, AreFoundOnBothFamilies) {
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::uint16_t port4 = 0;
  const Fd four = listen_on(v4, port4, AF_INET);
  ASSERT_TRUE(four);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = in6addr_any;
  std::uint16_t port6 = 0;
  const Fd six = listen_on(v6, port6, AF_INET6);
  std::vector<std::uint16_t> ports{port4};
  if (six) ports.push_back(port6);

  std::vector<std::uint16_t> seen;
  for (const auto& listener : listeners_on(ports)) {
    seen.push_back(listener.port);
    EXPECT_EQ(listener.uid, ::getuid());
    EXPECT_THAT(listener.pids, ElementsAre(::getpid()));
  }
  EXPECT_THAT(seen, ::testing::UnorderedElementsAreArray(ports));
  // What IPv4 shows was asserted above; a kernel without IPv6 has nothing more to show.
  if (!six) GTEST_SKIP() << "no IPv6 on this machine: only IPv4 was seen";
}

TEST(Listeners, AConnectionOrABoundSocketIsNone) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::uint16_t port = 0;
  Fd listening = listen_on(address, port, AF_INET);
  ASSERT_TRUE(listening);
  const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  address.sin_port = htons(port);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(client.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  EXPECT_THAT(listeners_on({ntohs(address.sin_port)}), IsEmpty());
  listening.reset();
  EXPECT_THAT(listeners_on({port}), IsEmpty());
}

TEST(Listeners, EveryHolderOfASharedSocketIsNamed) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::uint16_t port = 0;
  const Fd listening = listen_on(address, port, AF_INET);
  ASSERT_TRUE(listening);
  ::fcntl(listening.get(), F_SETFD, 0);
  ChildProcess child(helper({"named", "heir"}));
  ::fcntl(listening.get(), F_SETFD, FD_CLOEXEC);
  ASSERT_EQ(child.read_line(), "ready");
  const auto listeners = listeners_on({port});
  ASSERT_EQ(listeners.size(), 1u);
  EXPECT_THAT(listeners[0].pids, UnorderedElementsAre(::getpid(), child.pid()));

  const auto first = listeners_on({port}, LikelyHolders{{}, {child.pid()}});
  ASSERT_EQ(first.size(), 1u);
  EXPECT_THAT(first[0].pids, ElementsAre(child.pid())) << "who was likely to hold it does: nobody else is looked at";
  const auto all = listeners_on({port}, LikelyHolders{{}, {1, 999999999}});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_THAT(all[0].pids, UnorderedElementsAre(::getpid(), child.pid())) << "a wrong guess costs time, not the answer";
}

TEST(Listeners, AKnownCgroupIsAnswerEnough) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::uint16_t port = 0;
  const Fd listening = listen_on(address, port, AF_INET);
  ASSERT_TRUE(listening);
  const auto own = cgroup_members({control_group_of(::getpid())}).front().id;
  // A container may hide the hierarchy, and then sockets carry no cgroup that could be known.
  if (own == 0) GTEST_SKIP() << "not run: our own cgroup cannot be seen here";
  const auto known = listeners_on({port}, LikelyHolders{{own}, {}});
  ASSERT_EQ(known.size(), 1u);
  EXPECT_EQ(known[0].control_group_id, own);
  EXPECT_THAT(known[0].pids, IsEmpty()) << "nobody's descriptors were looked through";
  const auto unknown = listeners_on({port}, LikelyHolders{{own + 1}, {}});
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_EQ(unknown[0].control_group_id, 0u);
  EXPECT_THAT(unknown[0].pids, ElementsAre(::getpid()));
}

TEST(BootId, IsOneAndStable) {
  const auto id = boot_id();
  ASSERT_TRUE(id);
  EXPECT_EQ(id->size(), 36u);
  EXPECT_EQ(*id, *boot_id());
}

TEST(Addresses, OfOtherMachinesAreKnown) {
  EXPECT_TRUE(is_foreign_address("192.0.2.7")) << "for documentation only: nobody has it";
  for (const char* ours : {"127.0.0.1", "127.0.0.2", "0.0.0.0", "", "localhost", "no.such.host"})
    EXPECT_FALSE(is_foreign_address(ours)) << ours;
}

}  // namespace
}  // namespace gpumod
