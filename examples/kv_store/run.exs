# Writes to the three nodes of main.rs, and kills the one that leads. Needs no package: any node may ask a member.

nodes = for letter <- ~w(a b c), do: :"#{letter}@127.0.0.1"
for node <- nodes, do: true = Node.connect(node)

defmodule Wait do
  def until(fun), do: fun.() || (Process.sleep(10) && until(fun))
end

defmodule Store do
  # `:unknown`: it may be done, or not; to put the same once more does no harm. `:no_quorum`: nothing was done, nor where the group is
  # still being founded.
  def put(node, key, value) do
    case GenServer.call({:tiebeam, node}, {:kv, :put, key, value}, 30_000) do
      {:ok, revision} -> revision
      {:error, reason} when reason in [:unknown, :no_quorum] -> put(node, key, value)
      {:error, {:not_founded, _missing}} -> put(node, key, value)
    end
  end

  # Linearizable: at least as new as all that was acknowledged, whichever node is asked.
  def get(node, key) do
    case GenServer.call({:tiebeam, node}, {:kv, :get, key}, 30_000) do
      {:ok, value, _revision} -> value
      :not_found -> nil
      {:error, reason} when reason in [:unknown, :no_quorum] -> get(node, key)
      {:error, {:not_founded, _missing}} -> get(node, key)
    end
  end

  def leader(node) do
    Wait.until(fn ->
      with {:ok, leader, _term} <- GenServer.call({:tiebeam, node}, :leader), do: leader, else: (:none -> nil)
    end)
  end
end

# A write may go to any node: it is on a majority when it is answered.
first = Store.put(:"a@127.0.0.1", "user:1", "Alice")
second = Store.put(:"b@127.0.0.1", "user:2", "Bob")
IO.puts("written: Alice, then Bob: #{first < second}")
IO.puts("read:    #{inspect(for node <- nodes, do: Store.get(node, "user:1"))}")

leader = Store.leader(hd(nodes))
Node.monitor(leader, true)
send({:crash, leader}, :now)
receive do: ({:nodedown, ^leader} -> IO.puts("killed:  the leader"))

# The two that are left elect another one, and have all that was acknowledged.
left = nodes -- [leader]
IO.puts("read:    #{inspect(for node <- left, do: Store.get(node, "user:2"))}")
third = Store.put(hd(left), "user:2", "Carol")
IO.puts("written: Carol, later: #{second < third}")
IO.puts("read:    #{inspect(for node <- left, do: Store.get(node, "user:2"))}")
IO.puts("leader:  one of the two: #{Store.leader(hd(left)) in left}")
