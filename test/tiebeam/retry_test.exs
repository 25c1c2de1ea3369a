defmodule Tiebeam.RetryTest do
  use ExUnit.Case, async: true
  doctest Tiebeam.Retry

  alias Tiebeam.Retry

  # How often it was called, and what came of it.
  defp counted(policy, answer, retryable) do
    {:ok, count} = Agent.start_link(fn -> 0 end)

    call = fn ->
      Agent.update(count, &(&1 + 1))
      answer
    end

    answer = if retryable, do: Retry.run(policy, call, retryable), else: Retry.run(policy, call)
    {Agent.get(count, & &1), answer}
  end

  test "only what was not done is tried again" do
    policy = Retry.new(attempts: 4, delay: 1)
    assert counted(policy, {:error, :busy}, nil) == {4, {:error, :busy}}
    assert counted(policy, {:error, {:noconnection, :a@b}}, nil) == {4, {:error, {:noconnection, :a@b}}}
    assert counted(policy, {:error, :timeout}, nil) == {1, {:error, :timeout}}
    assert counted(policy, {:error, :timeout}, &(&1 == :timeout)) == {4, {:error, :timeout}}
    assert counted(policy, :error, nil) == {1, :error}
    assert counted(Retry.new(attempts: 1), {:error, :busy}, nil) == {1, {:error, :busy}}
  end

  test "every jitter stays within its bounds" do
    for jitter <- [:none, :full, :equal, :decorrelated], chance <- [0.0, 0.3, 1.0] do
      policy = Retry.new(attempts: 50, delay: 100, max: 2_000, jitter: jitter)
      pauses = Retry.pauses(policy, fn -> chance end)
      assert length(pauses) == 49
      plain = Retry.pauses(%{policy | jitter: :none})

      for {pause, plain, last} <- Enum.zip([pauses, plain, [0 | pauses]]) do
        case jitter do
          :none -> assert pause == plain
          :full -> assert pause in 0..plain
          :equal -> assert pause in div(plain, 2)..plain
          :decorrelated -> assert pause in 100..min(2_000, 3 * max(last, 100))
        end
      end
    end
  end
end
