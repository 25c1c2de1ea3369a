defmodule Tiebeam.Placement do
  @moduledoc """
  Where the partitions of rings and the workers of pools are: the options that decide it, and what an operator does about it.

      :ok = Tiebeam.Placement.cordon(MyApp.Cluster, :"b@h2")
      :ok = Tiebeam.Placement.move({MyApp.Cluster, {:ring, "cache"}}, 7, :"c@h3")
      :ok = Tiebeam.Placement.drain(MyApp.Cluster, :"b@h2")

  The functions work from any node of the cluster, for any other, BEAM or Rust.

  ## Options of a ring or a pool

  What a node says of itself, when it starts its part of a `Tiebeam.Ring` or a `Tiebeam.Pool`:

  - `:weight` - its share, as against those of the others: 1 to 1,000. A node of weight 200 has twice the slots of one of 100, within one slot. Default: 100.
  - `:labels` - such as `[zone: "a", disk: "ssd"]`: at most 16, whose keys and values are texts of at most 64 bytes, or atoms.

  What is the same on all nodes of a ring, or a pool with `:replicas`:

  - `:placement` - which nodes may have a part of it, a keyword list. Where none may, nobody has it.
    - `on: [node]` - only these.
    - `label: [zone: "a"]` - only those that have, of each key that is listed, one of the values.
    - `avoid: [disk: "hdd"]` - not those that have one of these.
    - `prefer: [zone: "a"]` - rather those that have more of these, where an even spread leaves a choice: which nodes have a worker, if there are more nodes
      than workers, and one partition more than others. Nothing moves for it by itself, but `rebalance/1` does move it.
    - `away_from: "db"` - not those that have a worker of that pool.
  - `:rebalance` - how it moves, a keyword list. What nobody holds is always taken at once.
    - `threshold: slots` - nobody gives up anything for balance's sake while the greatest and the least share differ by no more than this. Default: 1, even shares.
    - `max_concurrent: slots` - so many slots of a node at most are on their way to others at a time. Default: all.
    - `cooldown: ms` - a node waits for so long between two moves for balance's sake. Default: 0.

  A slot is a partition of a ring, or a worker's place of a pool, from 0.

  ## Orders

  An order is for one ring, `{cluster, {:ring, name}}`, for one pool, `{cluster, {:pool, name}}`, or for all of a cluster, by its local name. It changes what a
  node says of itself; the nodes then act when that has settled, so an order is answered before its effect is there. What was ordered is forgotten when
  the ring or the pool ends on that node, and starts from its options again.

      iex> {:ok, _} = Tiebeam.Pool.start_link(cluster: MyApp.Cluster, name: "orders", child: {Agent, fn -> 1 end}, replicas: 1)
      iex> pool = {MyApp.Cluster, {:pool, "orders"}}
      iex> Tiebeam.Placement.cordon(pool, node())
      :ok
      iex> Tiebeam.Placement.move(pool, 0, node())
      {:error, :cordoned}
      iex> Tiebeam.Placement.uncordon(pool, node())
      :ok
      iex> {Tiebeam.Placement.weight(pool, node(), 200), Tiebeam.Placement.label(pool, node(), zone: "a")}
      {:ok, :ok}
      iex> for {node, about} <- Tiebeam.Placement.participants(pool), do: {node == node(), about.weight, about.labels}
      [{true, 200, %{"zone" => "a"}}]
      iex> Tiebeam.Placement.drain(pool, node())
      :ok
      iex> Tiebeam.Placement.cordon(MyApp.Cluster, :nobody@nowhere)
      {:error, :not_started}

  ## Who decides

  All nodes, each for itself, by the functions `partition/2`, `rank/2` and what is behind `plan/5`. They are the same on all nodes and in both
  languages, and ask nobody. Hashes are SipHash-2-4 with the key zero. Keys and names are those of `Tiebeam.Registry`; hashed are their bytes in the external
  term format, as `:erlang.term_to_binary(key, minor_version: 2)` writes them.

      iex> Tiebeam.Placement.partition("user:1", 256)
      99
      iex> Tiebeam.Placement.rank("user:4", [:n1@host, :n2@host, :n3@host])
      [:n2@host, :n1@host, :n3@host]

  These, of bytes, are the same in all releases:

      iex> {Tiebeam.Native.partition("", 256), Tiebeam.Native.partition("user:1", 256)}
      {30, 35}
      iex> Tiebeam.Native.score("user:1", :n1@host) == 0x70C7228A99C6EA5B
      true
  """

  alias Tiebeam.{Group, Native, Registry}
  alias Tiebeam.Placement.{Manager, Participant, Policy, View}
  alias Tiebeam.Registry.Name

  @typedoc "A ring or a pool."
  @type task :: {Tiebeam.name(), {:ring | :pool, Registry.name()}}

  @typedoc "What a node says of itself."
  @type participant :: %{
          weight: pos_integer,
          labels: %{binary => binary},
          draining: boolean,
          cordoned: boolean,
          pinned: [slot]
        }

  @typedoc "A partition of a ring, or a worker's place of a pool, from 0."
  @type slot :: non_neg_integer

  @typedoc """
  Why an order was not carried out.

  - `:not_started` - the node takes no part in it, as far as this node knows.
  - `:no_such_slot` - there is no slot of that number; a pool that spreads has none.
  - `:cordoned`, `:draining`, `:not_eligible` - the node takes nothing new, or may not have it.
  - `:too_many_pins` - a node has as many slots that were moved there by hand as it can: 256, and one of a pool.
  - `{:bad_request, request}` - it does not know of such orders: a node of another release.
  - `:timeout`, `:noproc`, `{:down, reason}` - it did not answer; it may have heard the order.
  - a list of these by ring or pool, where the order was for several.
  """
  @type error :: atom | {:bad_request, term} | {:down, term} | [{{:ring | :pool, Registry.name()}, error}]

  # How long an order waits for an answer, in milliseconds.
  @order 5_000

  # As in the core, where the reason is.
  @max_slots 4096

  # A day.
  @max_duration 86_400_000

  # For `Tiebeam.Ring` and `Tiebeam.Pool`.

  @doc false
  def max_slots, do: @max_slots

  @doc false
  # Raises unless the options that both have are right; `durations` are milliseconds, `timeouts` may be `:infinity`.
  def check!(options, durations, timeouts) do
    unless is_atom(options.cluster) and options.cluster != nil do
      raise ArgumentError,
            "the option :cluster is required: the name of a cluster, got: #{inspect(options.cluster)}"
    end

    if options.name == nil, do: raise(ArgumentError, "the option :name is required")
    # The longest name that is made of it.
    encode!({:tiebeam, :workers, {options.name, @max_slots}})

    for key <- durations, value = options[key], not (is_integer(value) and value in 0..@max_duration) do
      raise ArgumentError, "the option #{inspect(key)} must be milliseconds, got: #{inspect(value)}"
    end

    for key <- timeouts, value = options[key], value != :infinity do
      unless is_integer(value) and value in 1..@max_duration do
        raise ArgumentError,
              "the option #{inspect(key)} must be milliseconds or :infinity, got: #{inspect(value)}"
      end
    end

    for key <- [:max_restarts, :max_seconds], value = options[key] do
      unless is_integer(value) and value >= if(key == :max_seconds, do: 1, else: 0) do
        raise ArgumentError, "the option #{inspect(key)} must be a number, got: #{inspect(value)}"
      end
    end

    :ok
  end

  @doc false
  def policy!(options), do: Policy.of!(options.placement, options.rebalance)

  @doc false
  def says!(options) do
    unless Participant.weight?(options.weight) do
      raise ArgumentError,
            "the option :weight must be a number from 1 to 1000, got: #{inspect(options.weight)}"
    end

    labels = Participant.labels!(options.labels, "the option :labels")
    %Participant{weight: options.weight, labels: labels}
  end

  @doc """
  The nodes that take part in a ring or a pool, as far as this node knows, with what each says of itself. Reads a table and never waits.
  """
  @spec participants(task) :: %{node => participant}
  def participants({cluster, {kind, name}}) when kind in [:ring, :pool] do
    for {node, participant} <- View.participants(Manager.all(cluster, kind, name)),
        into: %{},
        do: {node, Map.from_struct(participant)}
  end

  @doc """
  Moves a slot to a node, which keeps it, whatever its share, for as long as it takes part, until it is moved elsewhere or `unpin/2`. Its share
  counts it: it has fewer others then. Blocks until the nodes that take part have answered, at most ten seconds.
  """
  @spec move(task, slot, node) :: :ok | {:error, error}
  def move({_cluster, {kind, _name}} = task, slot, node)
      when kind in [:ring, :pool] and is_integer(slot) and slot >= 0 and is_atom(node) do
    with :ok <- order(task, node, {:pin, slot}, @order), do: unpin(task, slot, &(&1 != node))
  end

  @doc "Gives up that a slot was moved somewhere: it stays there until others have too few. Blocks as `move/3`."
  @spec unpin(task, slot) :: :ok | {:error, error}
  def unpin({_cluster, {kind, _name}} = task, slot) when kind in [:ring, :pool] and is_integer(slot),
    do: unpin(task, slot, fn _node -> true end)

  defp unpin(task, slot, from) do
    nodes = for {node, %{pinned: pinned}} <- participants(task), slot in pinned, from.(node), do: node

    Enum.reduce(nodes, :ok, fn node, result ->
      with :ok <- order(task, node, {:unpin, slot}, @order), do: result
    end)
  end

  @doc "Has a node take nothing new. It keeps what it has. Blocks until it has answered, at most five seconds."
  @spec cordon(Tiebeam.name() | task, node) :: :ok | {:error, error}
  def cordon(what, node), do: order(what, node, :cordon, @order)

  @doc "Ends a cordon: the node gets its share. Blocks as `cordon/2`."
  @spec uncordon(Tiebeam.name() | task, node) :: :ok | {:error, error}
  def uncordon(what, node), do: order(what, node, :uncordon, @order)

  @doc """
  Has a node give up everything in good order, and take nothing until the ring or the pool is started there again. Answers when that is done; with
  `{:error, :timeout}` after `timeout` milliseconds, while it goes on.
  """
  @spec drain(Tiebeam.name() | task, node, timeout :: pos_integer) :: :ok | {:error, error}
  def drain(what, node, timeout \\ 30_000), do: order(what, node, :drain, timeout)

  @doc "Sets the weight of a node, 1 to 1,000. Blocks as `cordon/2`."
  @spec weight(Tiebeam.name() | task, node, 1..1000) :: :ok | {:error, error}
  def weight(what, node, weight), do: order(what, node, {:weight, weight}, @order)

  @doc "Replaces the labels of a node; they are those of the option `:labels`. Blocks as `cordon/2`."
  @spec label(Tiebeam.name() | task, node, labels :: keyword | %{(binary | atom) => binary | atom}) ::
          :ok | {:error, error}
  def label(what, node, labels),
    do: order(what, node, {:labels, Participant.labels!(labels, "labels")}, @order)

  @doc """
  Has all nodes move what is to be moved for an even spread, at once: whatever the threshold, the cooldown and `:settle`, and to preferred nodes as well.
  Answers when all have been told, after five seconds at most.
  """
  @spec rebalance(Tiebeam.name() | task) :: :ok | {:error, error}
  def rebalance(what) do
    what |> managers(fn _node -> true end) |> tell(:rebalance, @order) |> result(what)
  end

  defp order(what, node, request, timeout) when is_atom(node) do
    case managers(what, &(&1 == node)) do
      [] -> {:error, :not_started}
      managers -> managers |> tell(request, timeout) |> result(what)
    end
  end

  defp managers({cluster, {kind, name}}, from) when kind in [:ring, :pool] do
    for {pid, _metadata} <- Manager.all(cluster, kind, name), from.(node(pid)), do: {{kind, name}, pid}
  end

  defp managers(cluster, from) when is_atom(cluster) do
    for {:tiebeam, kind, name} when kind in [:ring, :pool] <- Enum.sort(Group.groups(cluster)),
        manager <- managers({cluster, {kind, name}}, from),
        do: manager
  end

  # All at the same time.
  defp tell(managers, request, timeout) do
    asked = for {task, pid} <- managers, do: {task, Task.async(fn -> Manager.ask(pid, request, timeout) end)}

    for {task, question} <- asked do
      case Task.await(question, :infinity) do
        {:ok, :ok} -> {task, :ok}
        {:ok, {:error, reason}} -> {task, {:error, reason}}
        {:ok, other} -> {task, {:error, other}}
        {:error, reason} -> {task, {:error, reason}}
      end
    end
  end

  defp result(answers, what) do
    case for {task, {:error, reason}} <- answers, do: {task, reason} do
      [] -> :ok
      [{_task, reason} | _] when is_tuple(what) -> {:error, reason}
      reasons -> {:error, reasons}
    end
  end

  @doc """
  The partition of a key, from 0 to `partitions - 1`.

      iex> Tiebeam.Placement.partition({:user, 7}, 1)
      0
  """
  @spec partition(Registry.name(), pos_integer) :: non_neg_integer
  def partition(key, partitions) when is_integer(partitions) and partitions in 1..0xFFFFFFFF,
    do: Native.partition(encode!(key), partitions)

  @doc """
  The nodes, the one that is most meant for the key first ("rendezvous hashing"). When a node comes or goes, only the keys that it
  gets or had change their first node.

      iex> nodes = [:n1@host, :n2@host, :n3@host]
      iex> [first, second, third] = Tiebeam.Placement.rank(:key, nodes)
      iex> Tiebeam.Placement.rank(:key, [third, second])
      [second, third]
      iex> first in nodes
      true
  """
  @spec rank(Registry.name(), [node]) :: [node]
  def rank(key, nodes), do: Native.rank(encode!(key), nodes)

  @doc """
  What the node `me` should do about the slots of the task `name`, where `holders` has who holds each, and `nodes` can take slots: the
  numbers of those to let go, and of free ones to ask for. All nodes are alike, and have no labels or orders. The option `:most` is how many slots a node takes at most.

  Each node gets its even share. If all follow their plans nothing is left to do soon, and no slot moves but those that must:
  twelve over three nodes are four each, and after one has left six each, where the others keep what they had.

      iex> follow = fn holders, nodes ->
      ...>   Enum.reduce(nodes, holders, fn me, holders ->
      ...>     {_release, acquire} = Tiebeam.Placement.plan("ring", holders, nodes, me)
      ...>     Enum.reduce(acquire, holders, &List.replace_at(&2, &1, me))
      ...>   end)
      ...> end
      iex> three = follow.(List.duplicate(nil, 12), [:n1@host, :n2@host, :n3@host])
      iex> Enum.frequencies(three)
      %{n1@host: 4, n2@host: 4, n3@host: 4}
      iex> left = Enum.map(three, &if(&1 != :n3@host, do: &1))
      iex> two = follow.(left, [:n1@host, :n2@host])
      iex> Enum.frequencies(two)
      %{n1@host: 6, n2@host: 6}
      iex> Enum.all?(Enum.zip(left, two), fn {was, is} -> was in [nil, is] end)
      true
  """
  @spec plan(Registry.name(), [node | nil], [node], me :: node, keyword) ::
          {release :: [non_neg_integer], acquire :: [non_neg_integer]}
  def plan(name, holders, nodes, me, options \\ []) when length(holders) <= @max_slots do
    participants = for node <- Enum.uniq(nodes), do: Participant.native(node, %Participant{})
    most = Keyword.get(options, :most, @max_slots)
    view = {encode!(name), most, Policy.native(%Policy{}), holders, participants}
    {release, acquire, nil, _moves} = Native.turn(view, me, 0, {nil, [], false}, false)
    {release, acquire}
  end

  defp encode!(name) do
    case Name.encode(name) do
      {:ok, bytes} -> bytes
      {:error, reason} -> raise ArgumentError, Registry.describe(reason)
    end
  end
end
