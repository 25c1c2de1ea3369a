defmodule Tiebeam.CircuitBreakerTest do
  use ExUnit.Case, async: true
  doctest Tiebeam.CircuitBreaker

  import Support.Eventually

  alias Tiebeam.{CircuitBreaker, Retry}
  alias Tiebeam.CircuitBreaker.Machine

  describe "the machine" do
    @machine %Machine{failures: 3, pause: 30, trials: 2}

    defp opened, do: Enum.reduce(1..3, @machine, fn _, machine -> Machine.ended(machine, 0, :failed, 0) end)

    defp admitted(machine, now) do
      {:ok, permit, machine} = Machine.admit(machine, now)
      {permit, machine}
    end

    test "opens after so many failures in a row" do
      machine =
        for how <- [:failed, :failed, :succeeded, :failed, :failed], reduce: @machine do
          machine ->
            {permit, machine} = admitted(machine, 0)
            machine = Machine.ended(machine, permit, how, 0)
            assert Machine.state(machine, 0) == :closed
            machine
        end

      machine = Machine.ended(machine, 0, :failed, 1)
      assert Machine.state(machine, 1) == :open
      assert {:error, 20, _} = Machine.admit(machine, 11)
    end

    test "lets a few through after the pause, and closes when they end well" do
      machine = opened()
      assert Machine.state(machine, 29) == :open
      assert Machine.state(machine, 30) == :half_open
      {first, machine} = admitted(machine, 30)
      {second, machine} = admitted(machine, 30)
      assert {:error, 0, ^machine} = Machine.admit(machine, 30)
      machine = Machine.ended(machine, first, :succeeded, 31)
      assert {:error, 0, ^machine} = Machine.admit(machine, 31)
      machine = Machine.ended(machine, second, :succeeded, 31)
      assert Machine.state(machine, 31) == :closed
    end

    test "opens again when one of those fails, and what ends late does not count" do
      {first, machine} = admitted(opened(), 30)
      {second, machine} = admitted(machine, 30)
      machine = Machine.ended(machine, first, :failed, 40)
      assert {:error, 29, ^machine} = Machine.admit(machine, 41)
      assert Machine.ended(machine, second, :succeeded, 41) == machine

      # Let through while it was closed, and failed while it is tried.
      {trial, machine} = admitted(machine, 70)
      assert Machine.ended(machine, 0, :failed, 71) == machine
      machine = Machine.ended(machine, trial, :given_up, 71)
      {_, machine} = admitted(machine, 71)
      {_, machine} = admitted(machine, 71)
      assert {:error, 0, _} = Machine.admit(machine, 71)
    end
  end

  defp start(options) do
    name = :"#{__MODULE__}.#{System.unique_integer([:positive])}"
    start_supervised!({CircuitBreaker, [name: name] ++ options}, id: name)
    name
  end

  defp fail(breaker), do: CircuitBreaker.call(breaker, fn -> {:error, :noproc} end)

  test "an open one asks nobody, and one call after the pause closes it" do
    breaker = start(failures: 2, pause: 50)
    assert CircuitBreaker.call(breaker, fn -> :pong end) == :pong
    fail(breaker)
    assert CircuitBreaker.state(breaker) == :closed
    fail(breaker)
    # From here to the next line it may be half open on a machine that is slow.
    answer = CircuitBreaker.call(breaker, fn -> {:error, :noproc} end)
    assert match?({:error, {:open, wait}} when wait in 0..50, answer) or answer == {:error, :noproc}

    eventually(fn -> CircuitBreaker.state(breaker) == :half_open end)
    assert CircuitBreaker.call(breaker, fn -> {:ok, 1} end) == {:ok, 1}
    assert CircuitBreaker.state(breaker) == :closed
  end

  test "exits count, and go on to the caller; exceptions and refusals do not count" do
    breaker = start(failures: 2)

    for _ <- 1..3,
        do: assert_raise(RuntimeError, fn -> CircuitBreaker.call(breaker, fn -> raise "no" end) end)

    for _ <- 1..3, do: assert(catch_throw(CircuitBreaker.call(breaker, fn -> throw(:ball) end)) == :ball)
    for _ <- 1..3, do: CircuitBreaker.call(breaker, fn -> {:error, :not_enough_money} end)
    assert CircuitBreaker.state(breaker) == :closed

    for _ <- 1..2 do
      exit = catch_exit(CircuitBreaker.call(breaker, fn -> GenServer.call(:nobody_has_this_name, :ping) end))
      assert {:noproc, _} = exit
    end

    assert CircuitBreaker.state(breaker) == :open
  end

  test "a success forgives the failures before it, and what is a failure can be told" do
    breaker = start(failures: 2)
    fail(breaker)
    CircuitBreaker.call(breaker, fn -> :ok end)
    fail(breaker)
    assert CircuitBreaker.state(breaker) == :closed

    CircuitBreaker.call(breaker, fn -> {:error, :econnrefused} end, outage?: &(&1 == :econnrefused))
    assert CircuitBreaker.state(breaker) == :open
  end

  test "a trial whose caller is killed gives its turn back" do
    breaker = start(failures: 1, pause: 0)
    fail(breaker)
    me = self()

    caller =
      spawn(fn ->
        CircuitBreaker.call(breaker, fn ->
          send(me, :tried)
          Process.sleep(:infinity)
        end)
      end)

    assert_receive :tried
    assert CircuitBreaker.call(breaker, fn -> :pong end) == {:error, {:open, 0}}
    Process.exit(caller, :kill)
    eventually(fn -> CircuitBreaker.call(breaker, fn -> :pong end) == :pong end)
    assert CircuitBreaker.state(breaker) == :closed
  end

  test "retries around one end when it opens" do
    breaker = start(failures: 3)
    {:ok, asked} = Agent.start_link(fn -> 0 end)

    answer =
      Retry.run(Retry.new(attempts: 100, delay: 1, max: 1), fn ->
        CircuitBreaker.call(breaker, fn ->
          Agent.update(asked, &(&1 + 1))
          {:error, :noproc}
        end)
      end)

    assert {:error, {:open, _}} = answer
    assert Agent.get(asked, & &1) == 3
  end

  test "without one of that name it says so" do
    assert_raise ArgumentError, ~r/there is no circuit breaker NoSuchBreaker/, fn ->
      CircuitBreaker.call(NoSuchBreaker, fn -> :ok end)
    end
  end
end
