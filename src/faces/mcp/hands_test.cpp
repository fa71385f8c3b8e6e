// Reads run beside each other, few at once, and the slow ones hold up nobody but each other.
#include "faces/mcp/hands.h"

#include <atomic>
#include <future>

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "verbs/tree_testing.h"

namespace gpumod::mcp {
namespace {

namespace json = boost::json;

/// What holds every reader that gets so far. They run on threads of their own.
struct Gate {
  std::promise<void> open;
  std::shared_future<void> opened{open.get_future()};
  std::atomic<int> inside = 0;
  std::atomic<int> most = 0;
};
std::atomic<Gate*> gate = nullptr;

Task<Result<json::value>> wait_at_the_gate(Context&, json::object) {
  auto& here = *gate;
  const int inside = ++here.inside;
  for (int most = here.most; most < inside && !here.most.compare_exchange_weak(most, inside);) {
  }
  here.opened.wait();
  --here.inside;
  co_return json::value("held");
}

Task<Result<json::value>> answer_at_once(Context&, json::object) {
  co_return json::value("at once");
}

Verb verb(std::string name, decltype(Verb::handler) handler) {
  Verb made;
  made.name = std::move(name);
  made.handler = handler;
  return made;
}

class McpHands : public testing::Test {
 public:
  McpHands() { gate = &here; }

  Hands::Done count() {
    return [this](const Result<json::value>& answer) {
      EXPECT_TRUE(answer);
      ++answered;
      one_more.set();
    };
  }
  /// False: it was not so after a while that is long enough for anything.
  bool wait_until(std::function<bool()> what) {
    const auto deadline = now() + 10s;
    const auto look = [](McpHands& self, std::function<bool()> so, TimePoint end) -> Task<bool> {
      while (!so() && gpumod::now() < end) {
        (void)co_await self.one_more.wait(gpumod::now() + 5ms);
        self.one_more.reset();
      }
      co_return so();
    };
    return loop.run_until_done(look(*this, std::move(what), deadline));
  }

  TestTree tree;
  Loop loop;
  Signal one_more{loop};
  Gate here;
  int answered = 0;
  VerbHands hands{loop, tree.paths()};
  const Verb slow = verb("model list", wait_at_the_gate);
  const Verb held = verb("status", wait_at_the_gate);
  const Verb quick = verb("status", answer_at_once);
};

TEST_F(McpHands, ALookAtWhatRunsWaitsForNoSlowOne) {
  for (int i = 0; i < 8; ++i)
    hands.run(slow, {}, nullptr, count());
  ASSERT_TRUE(wait_until([this] { return here.inside == 2; }));
  hands.run(quick, {}, nullptr, count());
  EXPECT_TRUE(wait_until([this] { return answered == 1; }));
  here.open.set_value();
  EXPECT_TRUE(wait_until([this] { return answered == 9; }));
  EXPECT_EQ(here.most, 2) << "of the slow ones few run at once";
}

TEST_F(McpHands, OfQuickOnesFewRunAtOnceToo) {
  for (int i = 0; i < 12; ++i)
    hands.run(held, {}, nullptr, count());
  ASSERT_TRUE(wait_until([this] { return here.inside == 3; }));
  here.open.set_value();
  EXPECT_TRUE(wait_until([this] { return answered == 12; }));
  EXPECT_EQ(here.most, 3);
}

}  // namespace
}  // namespace gpumod::mcp
