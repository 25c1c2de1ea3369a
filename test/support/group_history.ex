defmodule Support.GroupHistory do
  @moduledoc """
  What a node of a group says and is answered, with times: whether it leads, what it writes and reads, which turns of a lock
  it has. And the judgement of the histories of all nodes of one machine.

  Runs on the node itself if that is a BEAM, or else on a BEAM beside it. Times are in microseconds of the machine's clock
  that never goes back, the same in all programs. What was answered between two times was true at some instant between them.
  """
  import ExUnit.Assertions

  alias Tiebeam.{KV, Leader, Lock}

  # In milliseconds.
  @sample_pause 2
  @write_pause 10
  @read_pause 20
  @turn 50
  @timeout 1_000

  @prefix "history:"
  @lock "turns"

  @doc "Starts to record: `{:beam, cluster}` is this node, `{:rust, node}` one that has the fixture."
  def start(target) do
    leads = fn -> sample(target, []) end
    writes = fn -> write(target, 0, 1, []) end
    reads = fn -> read(target, []) end
    turns = fn -> turn(target, []) end
    # The parts of a history, in this order.
    for loop <- [leads, writes, reads, turns], do: spawn(loop)
  end

  @doc "Ends it: the history."
  def stop(pids) do
    [leads, writes, reads, turns] = Enum.map(pids, &stop_one/1)
    %{leads: leads, writes: writes, reads: reads, turns: turns}
  end

  defp stop_one(pid) do
    monitor = Process.monitor(pid)
    send(pid, {:stop, self()})

    receive do
      {:history, ^pid, history} -> history
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit({:recorder, reason})
    end
  end

  @doc """
  Asks whether the node leads, again and again without a pause, on as many processors as there are: what it says in the instant in which
  it goes on after it stood still.
  """
  def start_hasty(target) do
    for _ <- 1..System.schedulers_online(), do: spawn(fn -> haste(target, %{}) end)
  end

  @doc "Ends it: the first and the last sample of each token, as those of `leads` in a history."
  def stop_hasty(pids), do: Enum.concat(for pid <- pids, do: pid |> stop_one() |> Enum.concat())

  # The first and the last sample of each token.
  defp haste(target, seen) do
    since = now()
    leads = leads?(target)
    until = now()

    seen =
      case leads do
        {:ok, token} ->
          sample = {:leads, since, until, token}
          Map.update(seen, token, [sample, sample], fn [first, _last] -> [first, sample] end)

        false ->
          seen
      end

    next(0, Map.values(seen), fn -> haste(target, seen) end)
  end

  @doc "The present."
  def now, do: :os.perf_counter(:microsecond)

  # Until it is told to stop; then the history is sent, oldest first.
  defp next(pause, history, go_on) do
    receive do
      {:stop, asker} -> send(asker, {:history, self(), Enum.reverse(history)})
    after
      pause -> go_on.()
    end
  end

  # The samples in which it led, and all that it believed of others, each once: `{:leads, since, until, token}`,
  # `{:believes, term, node}`.
  defp sample(target, history) do
    since = now()
    leads = leads?(target)
    until = now()

    history =
      case leads do
        {:ok, token} -> [{:leads, since, until, token} | history]
        false -> history
      end

    history =
      with {:ok, node, term} <- leader(target), false <- {:believes, term, node} in Enum.take(history, 2) do
        [{:believes, term, node} | history]
      else
        _ -> history
      end

    next(@sample_pause, history, fn -> sample(target, history) end)
  end

  defp leads?({:beam, cluster}), do: Leader.leader?(cluster)
  defp leads?({:rust, node}), do: :erpc.call(node, :fixture, :leads, [], 30_000)

  defp leader({:beam, cluster}), do: Leader.leader(cluster)
  defp leader({:rust, node}), do: GenServer.call({:tiebeam, node}, :leader, 30_000)

  # Numbers that grow, in a register that is this process's alone. What was not acknowledged may be done later, so the
  # register is left then, and another one taken.
  defp write(target, register, number, history) do
    key = "#{@prefix}#{node()}:#{register}"
    since = now()
    answer = put(target, key, number)
    entry = {key, number, since, now(), answer}
    history = [entry | history]
    register = if match?({:ok, _}, answer), do: register, else: register + 1
    next(@write_pause, history, fn -> write(target, register, number + 1, history) end)
  end

  @doc "Writes through a node, as the recorder does."
  def put({:beam, cluster}, key, value), do: KV.put(cluster, key, value, timeout: @timeout)
  def put({:rust, node}, key, value), do: GenServer.call({:tiebeam, node}, {:kv, :put, key, value}, 30_000)

  # All registers at one instant.
  defp read(target, history) do
    since = now()
    answer = list(target)
    until = now()

    history =
      case answer do
        {:ok, rows} -> [{since, until, Map.new(rows, fn {key, value, _} -> {key, value} end)} | history]
        {:error, _} -> history
      end

    next(@read_pause, history, fn -> read(target, history) end)
  end

  @doc "Reads all registers through a node, linearizably."
  def list({:beam, cluster}), do: KV.list(cluster, @prefix, timeout: @timeout)
  def list({:rust, node}), do: GenServer.call({:tiebeam, node}, {:kv, :list, @prefix}, 30_000)

  # Turns of one lock: `{token, granted, given up}`. It is given up before it is given back, or when it is lost.
  defp turn({:beam, cluster} = target, history) do
    history =
      case Lock.acquire(cluster, @lock, timeout: @timeout) do
        {:ok, token} ->
          granted = now()

          receive do
            {:tiebeam, ^cluster, {:lost, :lock, @lock, ^token}} -> [{token, granted, :lost} | history]
          after
            @turn ->
              given_up = now()
              _ = Lock.release(cluster, @lock, token, timeout: @timeout)
              [{token, granted, given_up} | history]
          end

        {:error, _} ->
          history
      end

    next(@sample_pause, history, fn -> turn(target, history) end)
  end

  # Locks are a node's own: a Rust node takes none for others.
  defp turn(target, history), do: next(@read_pause, history, fn -> turn(target, history) end)

  @doc """
  Asserts what has to be true of the histories, `[{node, history}]`, and answers what they had: `:leaders` is a list of
  `{node, token}` in the order of tokens, the rest are counts.
  """
  def judge(histories) do
    leaders = judge_leaders(histories)
    turns = judge_turns(for {_node, history} <- histories, turn <- history.turns, do: turn)
    writes = for {_node, history} <- histories, write <- history.writes, do: write
    reads = for {_node, history} <- histories, read <- history.reads, do: read
    judge_reads(reads, writes)
    acknowledged = Enum.count(writes, &match?({_, _, _, _, {:ok, _}}, &1))
    %{leaders: leaders, turns: length(turns), writes: acknowledged, reads: length(reads)}
  end

  # A token is one node's. It led at some instant before the end of its first sample, and at another one after the start of
  # its last one: so the samples of a token are over before those of the next begin, or two led at once.
  defp judge_leaders(histories) do
    samples =
      for {node, history} <- histories,
          {:leads, since, until, token} <- history.leads,
          do: {token, node, since, until}

    said = for {token, node, _, _} <- samples, uniq: true, do: {token, node}

    believed =
      for {_, history} <- histories, {:believes, term, node} <- history.leads, uniq: true, do: {term, node}

    leaders = Enum.uniq(said ++ believed)

    assert length(leaders) == length(Enum.uniq_by(leaders, &elem(&1, 0))),
           "a term has two leaders: #{inspect(leaders)}"

    reigns =
      for {token, samples} <- samples |> Enum.group_by(&elem(&1, 0)) |> Enum.sort() do
        {token, Enum.min(for {_, _, _, until} <- samples, do: until),
         Enum.max(for {_, _, since, _} <- samples, do: since)}
      end

    in_order(reigns, "two nodes led at once")
    for {token, node} <- Enum.sort(said), do: {node, token}
  end

  # The same for the turns of a lock. When a loss was told is not when the lock was lost.
  defp judge_turns(turns) do
    turns =
      Enum.sort(
        for {token, granted, until} <- turns,
            do: {token, granted, if(until == :lost, do: granted, else: until)}
      )

    tokens = Enum.map(turns, &elem(&1, 0))
    assert tokens == Enum.uniq(tokens), "a token was granted twice"
    in_order(turns, "two processes had a lock at once")
    turns
  end

  defp in_order(spans, what) do
    for {{_, _, until} = one, {_, since, _} = other} <- Enum.zip(spans, Enum.drop(spans, 1)) do
      assert until < since, "#{what}: #{inspect(one)}, #{inspect(other)}"
    end
  end

  # Reads, `{since, until, registers}`, are linearizable: each has all that was acknowledged before it began and nothing that
  # began after it ended, and what one has seen those that began later see.
  defp judge_reads(reads, writes) do
    started = for {key, number, since, _, _} <- writes, into: %{}, do: {{key, number}, since}

    acknowledged = for {key, number, _, until, {:ok, _}} <- writes, do: {until, {:least, %{key => number}}}

    seen = for {_, until, registers} <- reads, do: {until, {:least, registers}}
    begun = for {since, _, registers} <- reads, do: {since, {:read, registers}}

    # In the order of time; at the same one a read comes first, for it need not have what ends at that instant.
    events = Enum.sort_by(acknowledged ++ seen ++ begun, fn {time, {what, _}} -> {time, what != :read} end)

    Enum.reduce(events, %{}, fn
      {_, {:least, registers}}, least ->
        Map.merge(least, registers, fn _, one, other -> max(one, other) end)

      {time, {:read, registers}}, least ->
        old =
          for {key, number} <- least, Map.get(registers, key, 0) < number, do: {key, number, registers[key]}

        assert old == [],
               "a read that began at #{time} is too old (register, at least, read): #{inspect(old)}"

        least
    end)

    for {_, until, registers} <- reads, {key, number} <- registers do
      assert started[{key, number}] < until,
             "#{key} was read as #{inspect(number)}, which was not written yet"
    end

    # Each shows one instant: of two, one shows all that the other does.
    sizes =
      reads |> Enum.map(&elem(&1, 2)) |> Enum.uniq() |> Enum.sort_by(&(&1 |> Map.values() |> Enum.sum()))

    for {one, other} <- Enum.zip(sizes, Enum.drop(sizes, 1)), {key, number} <- one do
      assert Map.get(other, key, 0) >= number,
             "two reads show no order of writes: #{inspect(one)}, #{inspect(other)}"
    end
  end
end
