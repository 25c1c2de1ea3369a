defmodule Tiebeam.StateMachine.Replica do
  @moduledoc false
  # The process of a machine on one node: it brings the commands of this node's callers into the cluster's log of keys, applies what all
  # nodes brought there, and replies. The rules are `Tiebeam.StateMachine.Log`'s.

  use GenServer

  require Logger

  alias Tiebeam.{KV, Leader, Leadership}
  alias Tiebeam.StateMachine.{Encoding, Log, Snapshot}

  # Batches of this node that are under way at a time: what comes meanwhile is the next batch.
  @in_flight 4

  # A batch: less than a value may have, whose term and list take a few bytes.
  @max_batch_bytes 110 * 1024
  @max_batch 1024

  # Commands that wait for their batch, and their bytes.
  @max_waiting 4096
  @max_waiting_bytes 16 * 1024 * 1024

  # A process with more messages does not keep up: it begins anew with what the keys have, which is less.
  @max_messages 20_000

  # The machine of the node that brought the command before a point writes the snapshot; any other one does if there is none
  # after so many milliseconds, and up to as many more.
  @takeover 5_000

  # How long questions wait whose answer does not depend on other nodes.
  @timeout 5_000

  # `batches` are those of this node that were not applied, by key: their callers, and the revision if it is known; `asked` is what the
  # cluster's server was asked, by reference. `waiting` are commands without a batch, the last one first. `readers` wait for
  # the linearizable read that is under way, `later` for the one after it.
  @enforce_keys [:cluster, :module, :argument, :name, :prefix, :client, :every, :state, :log]
  defstruct @enforce_keys ++
              [told: [], asked: %{}, batches: %{}, next: 0, waiting: [], waiting_count: 0, waiting_bytes: 0] ++
              [readers: [], later: [], point: nil, writer: nil, timer: nil, takeover: @takeover]

  @spec start_link(map) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: options.process)

  @impl true
  def init(%{cluster: cluster, module: module, name: name} = options) do
    {prefix, _parts} = Log.prefixes(name)
    Process.monitor(cluster)

    replica = %__MODULE__{
      cluster: cluster,
      module: module,
      argument: options.argument,
      name: name,
      prefix: prefix,
      client: Base.encode16(:crypto.strong_rand_bytes(8), case: :lower),
      every: options.snapshot_every,
      state: nil,
      log: nil
    }

    case KV.watch(cluster, prefix) do
      {:ok, _revision} ->
        {:ok, load(replica)}

      {:error, :no_group} ->
        {:stop, {:no_group, "start #{inspect(cluster)} with the option :voters or :expect"}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  # The beginning: the latest snapshot, and the batches behind it. What the cluster's server sends is in order with its answers, so
  # what was told before `since` is among the keys that are listed after it, and what comes later is told. Lists of several pages are of
  # several moments; that matters only if there is another snapshot meanwhile, and then they are listed anew.
  defp load(replica) do
    since = watch!(replica)
    {:ok, rows} = KV.list(replica.cluster, replica.prefix, min_revision: 0, timeout: @timeout)
    rows = for {key, value, at} <- rows, at <= since, do: Log.read(replica.prefix, key, value, at)
    snapshot = Enum.find_value(rows, &with({:snapshot, snapshot} <- &1, do: snapshot, else: (_ -> nil)))
    found = if snapshot, do: Snapshot.read(replica.cluster, replica.name, snapshot), else: {:ok, nil}
    _ = watch!(replica)

    told =
      for {key, value, at} <- flush(replica.cluster, []),
          at > since,
          do: Log.read(replica.prefix, key, value, at)

    case found do
      {:ok, state} ->
        if Enum.any?(told, &match?({:snapshot, _}, &1)) do
          load(replica)
        else
          state = if snapshot, do: replica.module.restore(state), else: initial(replica)
          log = Log.new(replica.every, snapshot)
          batches = for {:batch, _key, _bytes, _at} = batch <- rows, do: batch
          {:ok, batches} = Log.next(log, decoded(told ++ batches, log), nil)
          replica = %{replica | state: state, log: log, told: [], point: nil, timer: nil}
          batches |> Enum.reduce(replica, &apply_batch/2) |> settle()
        end

      # Its parts go only after another one has come, which is told.
      :gone ->
        if Enum.any?(told, &match?({:snapshot, _}, &1)),
          do: load(replica),
          else: exit({:broken_snapshot, replica.prefix, snapshot.revision})
    end
  end

  defp initial(replica) do
    {:ok, state} = replica.module.init(replica.argument)
    state
  end

  defp watch!(replica) do
    {:ok, revision} = KV.watch(replica.cluster, replica.prefix)
    revision
  end

  defp flush(cluster, changes) do
    receive do
      {:tiebeam, ^cluster, {:kv, :put, key, value, at}} -> flush(cluster, [{key, value, at} | changes])
      {:tiebeam, ^cluster, {:kv, :delete, _key, _at}} -> flush(cluster, changes)
    after
      0 -> changes
    end
  end

  @impl true
  def handle_call({:command, bytes, timeout}, from, replica) do
    cond do
      limit = Log.full(replica.log) ->
        {:reply, {:error, {:busy, limit}}, replica}

      replica.waiting_count >= @max_waiting or replica.waiting_bytes > @max_waiting_bytes ->
        {:reply, {:error, {:busy, @max_waiting}}, replica}

      true ->
        until = System.monotonic_time(:millisecond) + timeout
        {:noreply, send_batches(wait(replica, {from, bytes, until}))}
    end
  end

  def handle_call({:query, query, :local, _timeout}, _from, replica),
    do: {:reply, query(replica, query), replica}

  def handle_call({:query, query, :linear, timeout}, from, replica) do
    until = System.monotonic_time(:millisecond) + timeout
    {:noreply, read_next(%{replica | later: [{from, query, until} | replica.later]})}
  end

  def handle_call(:info, _from, replica) do
    %{revision: revision, count: count, snapshot: snapshot} = replica.log
    digest = replica.state |> replica.module.snapshot() |> Encoding.encode() |> :erlang.md5()
    snapshot = snapshot && snapshot.count
    {:reply, %{revision: revision, commands: count, snapshot: snapshot, digest: digest}, replica}
  end

  @impl true
  def handle_info({:tiebeam, cluster, {:kv, :put, key, value, at}}, %{cluster: cluster} = replica) do
    case Log.read(replica.prefix, key, value, at) do
      :other ->
        {:noreply, replica}

      change ->
        replica = %{replica | told: [change | replica.told]}
        # The answer to this node's own batch is right behind it.
        if under_way?(replica, key), do: {:noreply, replica}, else: {:noreply, ask_watch(replica)}
    end
  end

  def handle_info({:tiebeam, cluster, {:kv, :delete, _key, _at}}, %{cluster: cluster} = replica),
    do: {:noreply, replica}

  # Its server crashed: what it was asked is void, and there may even be another group.
  def handle_info({:tiebeam, cluster, {:kv, :unwatched, _prefix}}, %{cluster: cluster} = replica) do
    for {_key, %{callers: callers}} <- replica.batches, from <- callers, do: reply(from, {:error, :unknown})
    later = replica.readers ++ replica.later
    {:ok, _revision} = KV.watch(cluster, replica.prefix)
    replica = load(%{replica | asked: %{}, batches: %{}, told: [], readers: [], later: later})
    {:noreply, replica |> send_batches() |> read_next()}
  end

  # Whatever the server answers, what it told before has come before.
  def handle_info({reference, answer}, %{asked: asked} = replica) when is_map_key(asked, reference) do
    {what, asked} = Map.pop!(asked, reference)
    replica = catch_up(%{replica | asked: asked})
    {:noreply, answered(replica, what, answer)}
  end

  def handle_info({:DOWN, _monitor, :process, pid, reason}, %{writer: pid} = replica) do
    if reason != :normal,
      do:
        Logger.warning(
          "the machine #{replica.name} has no new snapshot: #{inspect(reason)}; it is tried again"
        )

    {:noreply, %{replica | writer: nil}}
  end

  def handle_info({:DOWN, _monitor, :process, {cluster, _node}, _reason}, %{cluster: cluster} = replica),
    do: {:stop, {:no_cluster, cluster}, replica}

  def handle_info({:take_over, timer}, %{timer: timer} = replica) do
    replica = %{replica | timer: nil}
    {:noreply, replica |> write() |> arm()}
  end

  # Late answers, and what nobody sends.
  def handle_info(_message, replica), do: {:noreply, replica}

  defp under_way?(replica, key) do
    case replica.batches do
      %{^key => %{reference: reference}} -> is_map_key(replica.asked, reference)
      _ -> false
    end
  end

  # A question to the server of the cluster. If it is not there now, it will say that nothing is watched.
  defp ask(replica, what, command, timeout) do
    reference = Leadership.ask_async(replica.cluster, command, timeout)
    {reference, %{replica | asked: Map.put(replica.asked, reference, what)}}
  rescue
    ArgumentError -> {nil, replica}
  end

  defp ask_watch(replica) do
    if Enum.any?(replica.asked, &match?({_reference, :watch}, &1)) do
      replica
    else
      {_reference, replica} = ask(replica, :watch, {:watch, replica.prefix}, @timeout)
      replica
    end
  end

  defp answered(replica, :watch, _answer), do: replica

  defp answered(replica, {:batch, key}, answer) do
    case {replica.batches, answer} do
      # It was applied.
      {batches, _answer} when not is_map_key(batches, key) ->
        replica

      {%{^key => batch}, {:done, revision}} ->
        # Its replies were in a snapshot that came instead.
        if revision <= replica.log.revision,
          do: fail(replica, key, {:error, :unknown}),
          else: put_in(replica.batches[key], %{batch | revision: revision})

      {_batches, refused} ->
        fail(replica, key, Leadership.error(refused))
    end
    |> send_batches()
  end

  defp answered(replica, :read, answer) do
    result =
      case answer do
        {:value, _} -> :ok
        other -> Leadership.error(other)
      end

    for {from, query, _until} <- replica.readers,
        do: reply(from, if(result == :ok, do: query(replica, query), else: result))

    read_next(%{replica | readers: []})
  end

  # Linearizable reads: one is under way at a time, and serves all that came before it was begun.
  defp read_next(%{readers: [], later: [_ | _]} = replica) do
    now = System.monotonic_time(:millisecond)
    {later, late} = Enum.split_with(replica.later, fn {_from, _query, until} -> until > now end)
    for {from, _query, _until} <- late, do: reply(from, {:error, :no_quorum})

    if later == [], do: %{replica | later: []}, else: read(%{replica | later: []}, later, now)
  end

  defp read_next(replica), do: replica

  defp read(replica, readers, now) do
    longest = readers |> Enum.map(&elem(&1, 2)) |> Enum.max()

    case ask(replica, :read, {:get, replica.prefix <> "snapshot", :linear}, longest - now) do
      {nil, replica} ->
        for {from, _query, _until} <- readers, do: reply(from, {:error, :no_quorum})
        replica

      {_reference, replica} ->
        %{replica | readers: readers}
    end
  end

  # A question that fails is no reason to end what all nodes have.
  defp query(replica, query) do
    {:ok, replica.module.handle_query(query, replica.state)}
  catch
    kind, reason -> {:error, {:failed, Exception.format_banner(kind, reason, __STACKTRACE__)}}
  end

  # Commands of this node.

  defp wait(replica, {_from, bytes, _until} = command) do
    %{
      replica
      | waiting: [command | replica.waiting],
        waiting_count: replica.waiting_count + 1,
        waiting_bytes: replica.waiting_bytes + byte_size(bytes)
    }
  end

  defp send_batches(%{waiting: []} = replica), do: replica

  defp send_batches(replica) do
    if Enum.count(replica.asked, &match?({_reference, {:batch, _key}}, &1)) >= @in_flight do
      replica
    else
      now = System.monotonic_time(:millisecond)
      commands = Enum.reverse(replica.waiting)
      {late, commands} = Enum.split_while(commands, fn {_from, _bytes, until} -> until <= now end)
      for {from, _bytes, _until} <- late, do: reply(from, {:error, :no_quorum})
      {batch, rest} = take(commands, @max_batch_bytes, @max_batch, [])

      replica = %{
        replica
        | waiting: Enum.reverse(rest),
          waiting_count: length(rest),
          waiting_bytes: rest |> Enum.map(fn {_from, bytes, _until} -> byte_size(bytes) end) |> Enum.sum()
      }

      if batch == [], do: replica, else: replica |> send_batch(batch, now) |> send_batches()
    end
  end

  # One command at least: none is larger than a batch may be.
  defp take([{_from, bytes, _until} = command | rest], room, count, taken)
       when taken == [] or (byte_size(bytes) <= room and count > 0),
       do: take(rest, room - byte_size(bytes), count - 1, [command | taken])

  defp take(rest, _room, _count, taken), do: {Enum.reverse(taken), rest}

  defp send_batch(replica, batch, now) do
    number = replica.next |> Integer.to_string(16) |> String.downcase() |> String.pad_leading(16, "0")
    key = "#{replica.prefix}c/#{replica.client}/#{number}"
    longest = batch |> Enum.map(&elem(&1, 2)) |> Enum.max()
    callers = for {from, _bytes, _until} <- batch, do: from
    value = Leadership.encode(batch(for {_from, bytes, _until} <- batch, do: bytes))
    replica = %{replica | next: replica.next + 1}

    case ask(replica, {:batch, key}, {:put, key, value, :anything}, longest - now) do
      {nil, replica} ->
        for from <- callers, do: reply(from, {:error, :no_quorum})
        replica

      {reference, replica} ->
        put_in(replica.batches[key], %{callers: callers, reference: reference, revision: nil})
    end
  end

  # The list of what these are; each has its version in front.
  defp batch(commands) do
    terms = for <<131, term::binary>> <- commands, do: term
    IO.iodata_to_binary([<<131, 108, length(commands)::32>>, terms, 106])
  end

  defp fail(replica, key, error) do
    {batch, batches} = Map.pop!(replica.batches, key)
    for from <- batch.callers, do: reply(from, error)
    %{replica | batches: batches}
  end

  defp reply(from, answer), do: GenServer.reply(from, answer)

  # Commands of all nodes.

  defp catch_up(%{told: []} = replica), do: replica

  defp catch_up(replica) do
    {:message_queue_len, messages} = Process.info(self(), :message_queue_len)
    snapshot = latest(for {:snapshot, snapshot} <- replica.told, do: snapshot)

    with true <- messages < @max_messages,
         {:ok, batches} <- Log.next(replica.log, decoded(replica.told, replica.log), snapshot) do
      replica = Enum.reduce(batches, %{replica | told: []}, &apply_batch/2)

      case Log.snapshot(replica.log, snapshot) do
        {:ok, log} -> settle(%{replica | log: log})
        :diverged -> diverged(replica, snapshot)
      end
    else
      _ -> %{replica | told: []} |> load() |> forget_lost()
    end
  end

  defp latest([]), do: nil
  defp latest(snapshots), do: Enum.max_by(snapshots, & &1.at)

  defp decoded(told, log) do
    for {:batch, key, bytes, at} <- told, at > log.revision do
      [_ | _] = commands = Leadership.decode!(bytes)
      %{key: key, revision: at, commands: commands, bytes: byte_size(bytes)}
    end
  end

  defp apply_batch(batch, replica) do
    {own, batches} = Map.pop(replica.batches, batch.key)

    {replies, state} =
      Enum.map_reduce(batch.commands, replica.state, &perform(replica, batch.revision, &1, &2))

    if own, do: Enum.zip_with(own.callers, replies, &reply(&1, {:ok, &2}))
    {point?, log} = Log.applied(replica.log, batch)
    replica = %{replica | state: state, log: log, batches: batches}
    if point?, do: point(replica, own != nil), else: replica
  end

  defp perform(replica, revision, command, state) do
    case replica.module.handle_command(command, state) do
      {:reply, reply, state} ->
        {reply, state}

      other ->
        raise ArgumentError,
              "expected #{inspect(replica.module)}.handle_command/2 to return {:reply, reply, state}, got: #{inspect(other)}"
    end
  catch
    kind, reason ->
      Logger.error(
        "the command of revision #{revision} ends the machine #{replica.name} on every node, until their code can do it: " <>
          inspect(command, limit: 20, printable_limit: 200)
      )

      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  # What was applied by another node's word, without its replies.
  defp forget_lost(replica) do
    lost =
      for {key, %{revision: at}} when at != nil and at <= replica.log.revision <- replica.batches, do: key

    Enum.reduce(lost, replica, &fail(&2, &1, {:error, :unknown}))
  end

  # Snapshots.

  defp point(replica, own?) do
    bytes = replica.state |> replica.module.snapshot() |> Encoding.encode()
    digest = :erlang.md5(bytes)
    log = Log.point(replica.log, digest)
    point = %{revision: log.revision, count: log.count, bytes: bytes, digest: digest}
    replica = %{replica | log: log, point: point}

    if byte_size(bytes) > Snapshot.max_bytes() do
      Logger.error(
        "the state of the machine #{replica.name} has #{byte_size(bytes)} bytes, more than the #{Snapshot.max_bytes()} of a snapshot: " <>
          "it takes no more commands soon, unless they make it smaller"
      )

      %{replica | point: nil}
    else
      if own?, do: write(replica), else: replica
    end
  end

  defp write(%{writer: nil, point: %{} = point} = replica) do
    %{cluster: cluster, name: name, log: %{snapshot: latest}} = replica

    {pid, _monitor} =
      spawn_monitor(fn ->
        case Snapshot.write(cluster, name, point, latest) do
          :ok -> :ok
          # Another node was faster.
          {:error, {:differs, _revision}} -> :ok
          {:error, reason} -> exit({:shutdown, reason})
        end
      end)

    %{replica | writer: pid}
  end

  defp write(replica), do: replica

  # What a snapshot stands for needs no other one.
  defp settle(%{point: %{count: count}} = replica) do
    if Log.covered(replica.log) >= count, do: %{replica | point: nil, timer: nil}, else: arm(replica)
  end

  defp settle(replica), do: replica

  defp arm(%{point: %{}, timer: nil} = replica) do
    timer = make_ref()
    Process.send_after(self(), {:take_over, timer}, replica.takeover + :rand.uniform(replica.takeover))
    %{replica | timer: timer}
  end

  defp arm(replica), do: replica

  @spec diverged(struct, Log.snapshot()) :: no_return
  defp diverged(replica, snapshot) do
    Logger.error(
      "the machine #{replica.name} of this node has another state after #{snapshot.count} commands than the node that wrote the snapshot: " <>
        "its commands depend on more than themselves and the state, or the nodes run different code. It begins anew with the snapshot. " <>
        "The leader is #{inspect(Leader.leader(replica.cluster))}"
    )

    exit({:diverged, snapshot.count})
  end
end
