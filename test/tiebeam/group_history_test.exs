# What the judge of recorded histories passes and what it refuses.
defmodule Tiebeam.GroupHistoryTest do
  use ExUnit.Case, async: true

  alias Support.GroupHistory

  @none %{leads: [], writes: [], reads: [], turns: []}

  defp judge(one, other), do: GroupHistory.judge(a: Map.merge(@none, one), b: Map.merge(@none, other))

  defp refused(message, one, other) do
    error = assert_raise ExUnit.AssertionError, fn -> judge(one, other) end
    assert error.message =~ message
  end

  test "one leader after the other" do
    first = %{leads: [{:leads, 1, 2, 7}, {:leads, 10, 12, 7}]}
    # It may have begun to lead at 11, after the other one's last instant.
    assert judge(first, %{leads: [{:leads, 9, 11, 8}]}).leaders == [a: 7, b: 8]
    refused("two nodes led at once", first, %{leads: [{:leads, 8, 9, 8}]})
    refused("two nodes led at once", first, %{leads: [{:leads, 11, 12, 6}]})
    refused("a term has two leaders", first, %{leads: [{:leads, 20, 21, 7}]})
    refused("a term has two leaders", first, %{leads: [{:believes, 7, :c}]})
  end

  test "one holder of a lock after the other" do
    assert judge(%{turns: [{1, 10, 20}, {3, 40, :lost}]}, %{turns: [{2, 21, 30}]}).turns == 3
    refused("two processes had a lock at once", %{turns: [{1, 10, 20}]}, %{turns: [{2, 19, 30}]})
    refused("two processes had a lock at once", %{turns: [{2, 10, 20}]}, %{turns: [{1, 21, 30}]})
    refused("a token was granted twice", %{turns: [{1, 10, 20}]}, %{turns: [{1, 21, 30}]})
  end

  test "reads of what is there" do
    writes = [{"x", 1, 0, 10, {:ok, 5}}, {"x", 2, 20, 30, {:ok, 6}}, {"y", 3, 40, 50, {:error, :unknown}}]
    read = fn reads -> [%{writes: writes}, %{reads: reads}] end
    passed = fn reads -> apply(&judge/2, read.(reads)) end
    refuse = fn message, reads -> apply(&refused/3, [message | read.(reads)]) end

    assert %{writes: 2, reads: 3} =
             passed.([{9, 12, %{}}, {25, 35, %{"x" => 1}}, {60, 61, %{"x" => 2, "y" => 3}}])

    refuse.("is too old", [{11, 12, %{}}])
    refuse.("is too old", [{31, 35, %{"x" => 1}}])
    refuse.("is too old", [{21, 22, %{"x" => 2}}, {23, 24, %{"x" => 1}}])
    refuse.("was not written yet", [{11, 15, %{"x" => 2}}])
    refuse.("no order of writes", [{41, 60, %{"x" => 2}}, {25, 41, %{"x" => 1, "y" => 3}}])
  end
end
